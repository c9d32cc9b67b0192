"""`sailplane log` and `evaluate --log` on a log written by the server's own writer."""

import json
import sys

import pytest

from routers.calibration import Calibration, Reference
from server.evidence.record import (
    Answered,
    FeedbackLine,
    RoutedLine,
    Selected,
    Weighed,
    digests,
)
from server.evidence.writer import RoutingLog

REFERENCE = Reference(count=500, edges=(0.5,), shares=(0.5, 0.5), first={"a": 0.5, "b": 0.5})


def question(i):
    weights = {"ab"[i % 2]: 0.8, "c": 0.2}
    experts = tuple(Weighed(id=id, version=1, weight=w) for id, w in weights.items())
    return RoutedLine(
        time=1000.0 + i, request_id=f"r{i}", router="sailplane", sees="choices", confidence=0.9,
        selection=Selected(mode="merge", experts=experts, strength=1.0, top_k=2),
        calibration="v", library="7", latency_ms=10.0 + i, tokens=4,
        answer=Answered(index=0, probability=0.75), values=digests(f"r{i}", ["yes", "no"]),
    )  # fmt: skip


@pytest.fixture
def log(tmp_path):
    """Sixty questions in several files; the first four have feedback: three right."""
    path = tmp_path / "routing.jsonl"
    written = RoutingLog(path, 12_000, 9)
    written.start()
    lines = [question(i) for i in range(60)]
    lines += [
        FeedbackLine(time=1100.0, request_id=f"r{i}", expected=digests(f"r{i}", [value])[0])
        for i, value in enumerate(["yes", "yes", "yes", "no"])
    ]
    written.write(lambda: lines)
    written.close()
    return path


@pytest.fixture
def calibrated(tmp_path):
    library = tmp_path / "library"
    library.mkdir()
    stored = Calibration(version="v", reference={"choices": REFERENCE})
    (library / "calibration.json").write_text(stored.model_dump_json())
    return library


def test_tables_of_all_that_is_in_the_log(run, log, calibrated):
    result = run("log", str(log), "--library", str(calibrated))
    assert result.exit_code == 0, result.output
    for told in (
        "60 questions", "4 lines of feedback: 4 answers judged", "a + c", "Routing confidence",
        "Accuracy by router", "75.0%", "30.1% - 95.4%", "Latency", "drifted (higher)",
    ):  # fmt: skip
        assert told in result.output


def test_json_has_every_figure(run, log, calibrated):
    result = run("log", str(log), "--json", "--library", str(calibrated))
    told = json.loads(result.stdout)
    assert told["span"]["files"] > 1, "the rotated files too"
    assert told["span"]["questions"] == told["routers"]["sailplane"] == told["libraries"]["7"] == 60
    assert [use["expert"] for use in told["usage"]] == ["c", "a", "b"]
    assert told["usage"][0]["mean_weight"] == pytest.approx(0.2)
    (drift,) = told["drift"]["drifts"]
    assert drift["confidence"]["reading"] == "drifted"
    assert drift["experts"]["reading"] == "stable"
    assert drift["ks"] == pytest.approx(0.5)


def test_plots_go_into_a_folder(run, log, calibrated, tmp_path):
    folder = tmp_path / "plots"
    result = run("log", str(log), "--library", str(calibrated), "--plots", str(folder), "--json")
    assert json.loads(result.stdout), "paths go to stderr"
    assert {p.name for p in folder.iterdir()} == {
        "usage.png", "together.png", "confidence.png", "distribution.png",
    }  # fmt: skip


def test_plots_without_matplotlib_are_told(run, log, calibrated, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run("log", str(log), "--library", str(calibrated), "--plots", str(tmp_path / "plots"))
    assert result.exit_code == 1
    assert "pip install 'sailplane[plots]'" in result.output


def test_without_a_reference_it_is_told_how_to_get_one(run, log, tmp_path):
    result = run("log", str(log), "--library", str(tmp_path))
    assert result.exit_code == 0
    assert "sailplane fit --tasks DIR --reference" in result.output


def test_a_file_that_is_no_log_is_told(run, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text('{"event": "request"}\n')
    result = run("log", str(other))
    assert (result.exit_code, "no line of a routing log" in result.output) == (1, True)
    assert run("log", str(tmp_path / "nothing")).exit_code == 1


def test_routers_are_scored_on_feedback(run, log, tmp_path):
    figures = tmp_path / "scores.json"
    result = run("evaluate", "--log", str(log), "--json", str(figures))
    assert result.exit_code == 0, result.output
    assert "Feedback by router" in result.output
    told = json.loads(figures.read_text())
    (glider,) = told["routers"]
    assert glider["questions"] == 60
    assert (glider["accuracy"]["judged"], glider["accuracy"]["right"]) == (4, 3)
    assert glider["confidence"] == 0.75
    assert glider["error"] == 0
    assert glider["routing"] == pytest.approx(0.9)
    assert [one["name"] for one in told["experts"]] == ["a", "b"]


def test_either_tasks_or_a_log(run, log, tmp_path):
    assert run("evaluate").exit_code == 2
    both = run("evaluate", "--log", str(log), "--tasks", str(tmp_path))
    assert both.exit_code == 2
    assert "not both" in both.output


def test_a_log_without_feedback_scores_nobody(run, tmp_path):
    path = tmp_path / "routing.jsonl"
    path.write_text(question(1).model_dump_json() + "\n")
    result = run("evaluate", "--log", str(path))
    assert result.exit_code == 1
    assert "POST /v1/feedback" in result.output
