"""Plots: those there is something for, as PNG files."""

import sys

import pytest

from routers.calibration import Calibration, Reference
from server.evidence.drift import compare
from server.evidence.plots import MissingPlots, write_plots
from server.evidence.reader import join
from server.evidence.summary import summarise

REFERENCE = Reference(count=100, edges=(0.5,), shares=(0.4, 0.6), first={"a": 1.0})


@pytest.fixture
def log(routed):
    return join(
        routed(
            f"r{i}", experts={"a": 0.6, f"e{i % 40}": 0.4}, time=60.0 * i, confidence=i % 10 / 10
        )
        for i in range(80)
    )


def test_every_plot_is_a_png(log, tmp_path):
    calibration = Calibration(version="c", reference={"choices": REFERENCE})
    drift = compare(log.rows, calibration)
    paths = write_plots(tmp_path / "new" / "plots", summarise(log), drift)
    assert [p.name for p in paths] == [
        "usage.png", "together.png", "confidence.png", "distribution.png",
    ]  # fmt: skip
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in paths)


def test_without_experts_and_reference_there_is_nothing_to_draw(routed, tmp_path):
    assert write_plots(tmp_path, summarise(join([routed(experts={})])), None) == []


def test_without_matplotlib_it_is_told_what_to_install(log, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPlots, match=r"pip install 'sailplane\[plots\]'"):
        write_plots(tmp_path, summarise(log), None)
