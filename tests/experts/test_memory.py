"""Freed memory stays until it is given back, and the collector spares what stays."""

import gc
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experts.memory import give_back_freed, keep_freed, spare_collector

BLOCK = 4 * 2**20
PAGES = BLOCK // resource.getpagesize()


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def make_and_free() -> None:
    for _ in range(10):
        torch.ones(BLOCK // 4)


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc's allocator")
def test_a_block_that_was_freed_costs_no_page_fault_the_second_time() -> None:
    assert keep_freed()
    make_and_free()
    before = faults()
    make_and_free()
    assert faults() - before < PAGES  # not even one block's worth


HEAPS = """
import ctypes, threading
from experts.memory import keep_freed
{before}
together = threading.Barrier(4)
def use():
    together.wait()
    kept = [bytearray(1000) for _ in range(1000)]
    together.wait()
threads = [threading.Thread(target=use) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
ctypes.CDLL(None).malloc_stats()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc's allocator")
@pytest.mark.parametrize(("before", "heaps"), [("", {4, 5}), ("assert keep_freed()", {1})])
def test_threads_share_one_heap(before: str, heaps: set[int]) -> None:
    code = HEAPS.format(before=before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("Arena ") in heaps


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed()
    assert not give_back_freed()


@pytest.mark.skipif(sys.platform != "linux", reason="a call of glibc's allocator")
def test_what_was_freed_between_blocks_in_use_is_given_back() -> None:
    small = 64 * 2**10  # of which a heap is made of
    blocks = [torch.ones(small // 4) for _ in range(1000)]
    kept = blocks[::10]
    del blocks
    before = resident()
    assert give_back_freed()
    assert before - resident() > 40 * 2**20
    assert all(float(block.sum()) == len(block) for block in kept)


def test_the_collector_looks_at_what_came_later_alone() -> None:
    before = [[] for _ in range(1000)]
    try:
        spare_collector()
        later = [[] for _ in range(10)]
        seen = {id(found) for found in gc.get_objects()}
        assert not seen & {id(item) for item in before}
        assert seen >= {id(item) for item in later}
    finally:
        gc.unfreeze()
