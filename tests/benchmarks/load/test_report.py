"""From files that phases left behind to figures, a page and pictures; and phases that are done."""

import csv
import json

import pytest

from benchmarks.load import phases, report
from tests.benchmarks.load.test_arithmetic import second

STEP = {"p50_ms": 20.0, "p99_ms": 60.0, "failed": 0}
SEARCH = {
    "minutes": 1.0,
    "levelled": True,
    "points": [
        {"users": u, "rate": r, "queued": r, "samples": 1.5 * r, **STEP}
        for u, r in ((2, 20.0), (4, 40.0), (8, 53.0), (16, 49.0))
    ],
    "top": {"users": 8, "rate": 50.0, "queued": 50.0, "samples": 75.0, **STEP},
}
AFTER = {**SEARCH["top"], "rate": 45.0}


def whole(at, answered, refused=0, failed=0, ms=20.0):
    own = {"client_cpu": 0.1, "client_lag": 0.002}
    return second(at, answered, refused, failed, ms) | own


@pytest.fixture
def folder(tmp_path):
    """A steady minute with one failure, and an overload that keeps its goodput and recovers."""
    steady = [whole(1000 + t, 40, failed=int(t == 30)) for t in range(100)]
    heavy = [whole(1040 + t, 48, refused=102, ms=400) for t in range(30)]
    course = [
        *[whole(1000 + t, 40) for t in range(40)], *heavy,
        *[whole(1070 + t, 48, refused=5, ms=300) for t in range(4)],
        *[whole(1074 + t, 40) for t in range(20)],
    ]  # fmt: skip
    for name, lines in (("steady", steady), ("overload", course)):
        (tmp_path / name).mkdir()
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / name / f"{name}.jsonl").write_text(text, "utf-8")
        seen = [
            {"time": t + 0.5, "rss": 1e9 + 1e5 * (t - 1000), "cpu": 0.8 * t, "busy": 1.1 * t,
             "samples": 72.0 * t}
            for t in range(1000, 1100)
        ]  # fmt: skip
        text = "".join(json.dumps(reading) + "\n" for reading in seen)
        (tmp_path / name / "server.jsonl").write_text(text, "utf-8")
    with (tmp_path / "steady" / "steady_stats.csv").open("w", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["Type", "Name", "Request Count", "Failure Count", "50%", "95%", "99%"])
        rows.writerow(["POST", "/v1/decisions", "4000", "1", "20", "40", "50"])
    return tmp_path


SPEED = {"own": SEARCH["top"], "after": AFTER}
FOUND = {
    "search": SEARCH,
    "steady": {"minutes": 1.0, "rate": 40.0, **SPEED, "from": 1020.0, "to": 1100.0},
    "overload": {
        "minutes": 1.0, "rate": 150.0, **SPEED, "before": 1020, "from": 1040, "to": 1070,
        "until": 1094,
    },
}  # fmt: skip


def figures(folder):
    found = [
        *report.searched(SEARCH),
        *report.steady(FOUND["steady"], folder / "steady"),
        *report.overloaded(FOUND["overload"], folder / "overload"),
    ]
    return found, {f.figure: f for f in found}


def test_figures_are_what_the_files_say(folder):
    _, by_name = figures(folder)
    assert by_name["saturation: right answers/s"].value == 50
    assert by_name["steady: requests/s"].value == pytest.approx(40, rel=0.01)
    assert by_name["steady: failed requests"].holds is False
    asked = by_name["steady: arrivals, of the saturation before and after"]
    assert asked.value == pytest.approx(40 / 47.5, rel=1e-3)
    assert asked.holds
    assert by_name["steady: p99 / p50"].holds
    growth = by_name["steady: growth of resident memory, %"]
    assert growth.value == pytest.approx(0.7, abs=0.1)
    assert growth.holds
    assert by_name["steady: cores others used"].value == pytest.approx(0.2, abs=0.01)
    assert by_name["overload: offered / saturation"].value == 3
    for phase in ("steady", "overload"):
        assert by_name[f"{phase}: saturation right before, answers/s"].value == 50
        assert by_name[f"{phase}: saturation right after, of that before"].value == 0.9
    assert by_name["overload: samples/s, of those at saturation"].value == pytest.approx(0.96)
    assert by_name["overload: seconds to recover"].value == 4
    assert by_name["overload: failed requests"].holds


def test_the_page_has_every_figure_and_its_pictures_exist(folder, tmp_path):
    told, by_name = figures(folder)
    made = report.write(folder, FOUND, told, tmp_path / "docs" / "load.md")
    assert [path.name for path in made] == [
        "load.md", "load-saturation.png", "load-steady.png", "load-overload.png",
    ]  # fmt: skip
    page = made[0].read_text("utf-8")
    assert all(name in page for name in by_name)
    assert "**no**" in page
    assert all(f"({path.name})" in page and path.stat().st_size > 10_000 for path in made[1:])


def test_the_page_can_be_written_after_the_first_phase(folder, tmp_path):
    found = {"search": SEARCH}
    made = report.write(folder, found, report.searched(SEARCH), tmp_path / "load.md")
    assert [path.name for path in made] == ["load.md", "load-saturation.png"]


def test_a_phase_that_is_done_is_not_run_again_but_for_another_plan(tmp_path):
    ran = []

    def run(at):
        ran.append(at)
        (at / "left.jsonl").write_text("", "utf-8")
        return {"points": []}

    for minutes in (1.0, 1.0, 2.0):
        told = phases.kept(tmp_path, phases.Plan(minutes), "search", run)
        assert told["minutes"] == minutes
    assert len(ran) == 2
    assert phases.done(tmp_path, phases.Plan(2.0), "search") == told
    assert phases.done(tmp_path, phases.Plan(2.0), "steady") is None


@pytest.mark.parametrize("minutes", [1, 2, 30])
def test_the_whole_takes_about_three_quarters_of_an_hour_and_a_try_minutes(minutes):
    plan = phases.Plan(minutes)
    warming = 3 * plan.warm_up + plan.stir
    total = warming + 9 * plan.step + plan.steady + 2 * plan.overload
    assert total < 60 * (46 if minutes == 30 else 8)
    assert plan.steady == 60 * minutes
