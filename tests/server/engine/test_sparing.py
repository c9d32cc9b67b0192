"""Which samples of a batch that fails are answered, and how often the engine tries."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from experts.errors import SystemExhausted
from server.engine.messages import Outcome, Sample
from server.engine.queue import Result
from server.engine.sparing import run_sparing

SAMPLES = [Sample(f"Text {i}.") for i in range(64)]


class Runner:
    """Has memory for so many samples at once, and fails on some."""

    def __init__(self, most: int, odd: Sequence[Sample] = ()) -> None:
        self.most, self.odd, self.runs = most, odd, 0

    def __call__(self, samples: Sequence[Sample]) -> Sequence[Result]:
        self.runs += 1
        if len(samples) > self.most:
            raise MemoryError
        if any(sample in self.odd for sample in samples):
            raise ValueError("odd")
        return [Outcome(None, None, 1) for _ in samples]  # type: ignore[arg-type]


@pytest.mark.parametrize(("most", "runs"), [(64, 1), (16, 7), (1, 127)])
def test_a_batch_without_memory_is_run_in_smaller_ones(most: int, runs: int):
    run = Runner(most)
    assert all(isinstance(result, Outcome) for result in run_sparing(run, SAMPLES))
    assert run.runs == runs


def test_where_there_is_none_at_all_that_is_found_soon():
    run = Runner(0)
    assert all(isinstance(result, SystemExhausted) for result in run_sparing(run, SAMPLES))
    assert run.runs == 7


def test_one_that_fails_fails_alone():
    results = run_sparing(Runner(64, SAMPLES[3:4]), SAMPLES)
    assert [i for i, r in enumerate(results) if not isinstance(r, Outcome)] == [3]
    assert isinstance(results[3], ValueError)
