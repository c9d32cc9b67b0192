"""The record of a run by seconds: counts, percentiles, and a file that was cut off."""

import random

import pytest

from deploy.load.timeline import Timeline, merged, percentile, read


def test_seconds_are_written_one_a_line_with_what_ended_in_them(tmp_path):
    timeline = Timeline(tmp_path / "t.jsonl", lambda: {"client_cpu": 0.5})
    begun = timeline._second
    timeline.add("a", "answered", 10, now=begun + 0.2)
    timeline.add("a", "answered", 20, now=begun + 0.9)
    timeline.add("b", "failed", 5, now=begun + 2.1)
    timeline.tick(begun + 3)
    timeline.add("b", "refused", 1, now=begun + 3.5)
    timeline.close()
    lines = read(tmp_path / "t.jsonl")
    assert [line["second"] - begun for line in lines] == [0, 1, 2, 3]
    assert [line["answered"] for line in lines] == [2, 0, 0, 0]
    assert [line["failed"] for line in lines] == [0, 0, 1, 0]
    assert [line["refused"] for line in lines] == [0, 0, 0, 1]
    assert lines[0]["names"] == {"a|answered": 2}
    assert all(line["client_cpu"] == 0.5 for line in lines)


def test_percentiles_are_within_two_percent(tmp_path):
    rng, timeline = random.Random(0), Timeline(tmp_path / "t.jsonl")
    begun = timeline._second
    taken = [rng.lognormvariate(3, 1) for _ in range(5000)]
    for i, milliseconds in enumerate(taken):
        timeline.add("a", "answered", milliseconds, now=begun + i / 1000)
    timeline.close()
    counts = merged(read(tmp_path / "t.jsonl"))
    taken.sort()
    for share in (0.1, 0.5, 0.9, 0.99):
        exact = taken[round(share * len(taken)) - 1]
        assert percentile(counts, share) == pytest.approx(exact, rel=0.02)
    assert percentile({}, 0.5) != percentile({}, 0.5)  # not a number


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    timeline = Timeline(tmp_path / "t.jsonl")
    timeline.tick(timeline._second + 2)
    timeline.close()
    whole = (tmp_path / "t.jsonl").read_text("utf-8")
    (tmp_path / "t.jsonl").write_text(whole[:-20], "utf-8")
    assert len(read(tmp_path / "t.jsonl")) == whole.count("\n") - 1
