import time
from pathlib import Path

import pytest

from benchmarks.generation import peers, vllm_env
from benchmarks.generation.shapes import checkpoint, prompts
from benchmarks.generation.vllm_worker import Requests, waits
from benchmarks.processes import BenchmarkError


def test_a_peer_is_measured_turn_by_turn(tiny_llama, tmp_path):
    folder = str(checkpoint(tiny_llama, tmp_path))
    job = {
        "checkpoint": folder, "adapters": [], "prompts": prompts(tiny_llama, 2, 8),
        "adapter_of": [None, None], "output_tokens": 4, "batch": 2,
    }  # fmt: skip
    with peers.transformers(job, [0]) as peer:
        first, second = peer.measure(), peer.measure()
        until = time.monotonic() + 10  # a signal takes its time
        while state_of(peer.process.pid) != "T":
            assert time.monotonic() < until, "between its turns it stands still"
            time.sleep(0.01)
    assert first["texts"] == second["texts"]
    assert peer.process.poll() is not None


def state_of(pid: int) -> str:
    """A process's state, as a letter."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_peer_that_cannot_start_is_told(tmp_path):
    job = {"checkpoint": str(tmp_path), "adapters": [], "prompts": [], "batch": 1}
    with pytest.raises(BenchmarkError, match="ended"), peers.transformers(job, [0]):
        pass


def test_waits_begin_at_the_arrival_and_tokens_are_counted_after_the_first():
    arrivals, seen = [0.0, 1.0], [[0.5, 0.75, 1.0], [2.5, 2.5, 4.5]]
    assert waits(arrivals, seen) == {
        "first_token_mean": 1.0,
        "first_token_p95": pytest.approx(1.45),
        "between_tokens_mean": pytest.approx((0.25 + 1.0) / 2),
    }


def test_vllm_is_not_asked_what_it_answers_wrongly():
    with pytest.raises(ValueError, match="no adapter"):
        Requests({"adapters": ["a"], "adapter_of": [0, None], "prompts": [[4], [5]]})


def test_a_missing_library_of_the_system_is_named(monkeypatch):
    monkeypatch.setattr(vllm_env, "find_library", lambda name: None)
    with pytest.raises(BenchmarkError, match="apt-get install -y libnuma1 libtcmalloc"):
        vllm_env.setup()
