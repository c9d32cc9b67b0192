"""Time per input of every row, measured side by side on the same inputs.

Batches of the engine, as a busy server runs them; rows take turns, and each turn a row gets another
batch, so that no row finds the features of its inputs computed by the row before. Embeddings of
choices and instructions are warm, as they are where questions repeat.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

from benchmarks.quality.conditions import Asking, ask
from benchmarks.quality.measure import sample_of
from benchmarks.quality.parts import Part
from benchmarks.quality.results import Gap, Results
from benchmarks.quality.rows import Row
from experts.training.data import Task
from server.engine.messages import Sample

INPUTS, BATCH = 200, 8
PART = Part("in", aside=True)


def time_rows(
    results: Results, rows: Sequence[Row], tasks: Sequence[Task],
    told: Callable[[], object] = lambda: None,
) -> dict[str, float]:  # fmt: skip
    """Median milliseconds per input of each row that can be asked, under `choices`.

    Args:
        tasks: held-in ones; a few examples set aside of each are asked. told: after each turn.
    """
    able = [r for r in rows if not any(isinstance(results.ways(r, PART, t), Gap) for t in tasks)]
    batches = _batches(tasks)
    spent: dict[str, list[float]] = {row.name: [] for row in able}
    inputs = results.bench.engine.inputs
    kept, inputs.entries = inputs.entries, BATCH
    try:
        for turn in range(-1, len(batches)):  # the first turn warms what stays warm
            for r, row in enumerate(able):
                batch = batches[(turn + r) % len(batches)]
                spent[row.name].append(_milliseconds(results, row, batch))
                told()
    finally:
        inputs.entries = kept
    return {name: round(median(times[1:]), 3) for name, times in spent.items()}


def turns(rows: Sequence[Row]) -> int:
    """How often `told` is called at most."""
    return (1 + INPUTS // BATCH) * len(rows)


def _batches(tasks: Sequence[Task]) -> list[list[tuple[Task, Asking]]]:
    """Batches of inputs from all tasks."""
    each = -(-INPUTS // len(tasks))
    asked = [
        (task, asking)
        for i in range(each)
        for task in tasks
        for asking in ask(task.name, task.aside[i : i + 1], None, "choices", ())
    ][:INPUTS]
    return [asked[i : i + BATCH] for i in range(0, len(asked), BATCH)]


def _milliseconds(results: Results, row: Row, batch: Sequence[tuple[Task, Asking]]) -> float:
    samples: list[Sample] = []
    for task, asking in batch:
        ways = results.ways(row, PART, task)
        assert not isinstance(ways, Gap)
        samples.append(sample_of(asking, ways[0]))
    start = time.perf_counter()
    results.bench.engine.run(samples)
    return (time.perf_counter() - start) * 1e3 / len(batch)
