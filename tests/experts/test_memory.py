"""Freed memory stays in the process."""

import resource
import sys

import pytest
import torch

from experts.memory import keep_freed

BLOCK = 4 * 2**20
PAGES = BLOCK // resource.getpagesize()


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


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


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed()
