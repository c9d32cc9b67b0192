"""What routers see of a library, read expert by expert and worked out many at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experts.artefacts import Artefacts
from experts.backbones import TextEncoder
from experts.constants import CALIBRATION
from experts.entries import ROUTING
from experts.errors import CorruptExpert
from experts.library import Library
from experts.manifest import BackboneRef, Manifest
from routers.calibration import Calibration
from routers.catalogue import Routed
from routers.fitting.inputs import with_inputs
from routers.fitting.variation import Variation
from routers.metric import LEAST_SEEN, Metric
from server.engine import view
from server.engine.view import LibraryView, routed_all

TEXTS = [f"{number} clear days at the airfield" for number in range(LEAST_SEEN)]


@pytest.fixture
def metric(tiny32: TextEncoder) -> Metric:
    return Variation.of({"some": tiny32.features([f"text {i}" for i in range(99)])}).metric()


@pytest.fixture
def told(tiny32: TextEncoder, rich_library: Path, metric: Metric) -> Library:
    """The library with a metric; all but two experts tell of their inputs, one of too few."""
    library = Library.open(rich_library, fingerprint=tiny32.fingerprint)
    library.write_calibration(Calibration().model_dump(mode="json"), metric.tensors())
    for length, id in enumerate(("weather", "mood", "flight", "quiz"), start=1):
        entry = library.get(id)
        texts = [f"{text} and {id} " * length for text in TEXTS]
        inputs = with_inputs(entry.read_artefacts(), tiny32, texts, metric)
        library.refit(entry, replace(inputs, seen=LEAST_SEEN - (id == "quiz")))
    return library


def routed_of(manifest: Manifest, artefacts: Artefacts, metric: Metric) -> Routed:
    """The slow twin: one at a time."""
    (routed,) = routed_all([(manifest, artefacts)], metric)
    return routed


def shown(expert: Routed) -> dict[str, object]:
    """An expert as comparable values."""
    rows = [t.tolist() for t in expert.artefacts.rows()]
    gaussian = None if expert.gaussian is None else expert.gaussian.packed.tolist()
    return {"id": expert.id, "version": expert.version, "group": expert.group, "rows": rows,
            "forms": expert.forms, "gaussian": gaussian, "inputs": expert.artefacts.inputs,
            "names": sorted(expert.artefacts.vectors)}  # fmt: skip


def test_many_are_seen_as_one_at_a_time_is(told: Library, metric: Metric):
    read = [(e.manifest, e.read_artefacts()) for e in told.entries.values()]
    many = routed_all(read, metric)
    assert [e.id for e in many] == list(told.entries)
    for (manifest, artefacts), expert in zip(read, many, strict=True):
        alone = routed_of(manifest, artefacts, metric)
        assert (expert.gaussian is None) == (expert.id in ("quiz", "sound"))
        if expert.gaussian is not None:
            torch.testing.assert_close(
                expert.gaussian.mean, alone.gaussian.mean, rtol=1e-3, atol=1e-3
            )
            torch.testing.assert_close(expert.gaussian.figures, alone.gaussian.figures)
        assert shown(replace(expert, gaussian=None)) == shown(replace(alone, gaussian=None))
    assert routed_all([], metric) == []
    assert all(e.gaussian is None for e in routed_all(read))


def test_a_mean_of_too_few_inputs_is_none():
    metric = Metric.of(torch.zeros(1, 4, dtype=torch.float64), torch.eye(4, dtype=torch.float64))
    manifest = Manifest(
        id="a", title="A", kind="lora", backbone=BackboneRef(id="b", fingerprint=64 * "c")
    )
    for seen in (0, LEAST_SEEN - 1, LEAST_SEEN):
        artefacts = Artefacts("", inputs=torch.ones(1, 4), seen=seen)
        gaussian = routed_of(manifest, artefacts, metric).gaussian
        assert (gaussian is None) == (seen < LEAST_SEEN)


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_it_is_the_same_however_many_are_read_at_once(
    tiny32: TextEncoder, told: Library, monkeypatch: pytest.MonkeyPatch, at_once: int
):
    expected = LibraryView(tiny32, tiny32, told).current().shortlist.catalogue
    monkeypatch.setattr(view, "AT_ONCE", at_once)
    steps: list[tuple[int, int]] = []
    seen = LibraryView(tiny32, tiny32, told).current(lambda *step: steps.append(step))
    catalogue = seen.shortlist.catalogue
    assert steps == [(done, 5) for done in range(5)]
    assert catalogue.ids == expected.ids == ("flight", "mood", "quiz", "sound", "weather")
    for got, wanted in zip(catalogue.experts, expected.experts, strict=True):
        assert (got.gaussian is None) == (wanted.gaussian is None)
        assert got.artefacts.inputs is None, "they went into the Gaussian"
        assert shown(replace(got, gaussian=None)) == shown(replace(wanted, gaussian=None))


def test_what_went_bad_stops_none_that_is_read_with_it(tiny32: TextEncoder, told: Library):
    file = told.root / "mood" / ROUTING
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    catalogue = LibraryView(tiny32, tiny32, told).current().shortlist.catalogue
    assert catalogue.ids == ("flight", "quiz", "sound", "weather")
    assert catalogue.get("weather").gaussian is not None
    assert "mood" in told.bad


def test_only_what_is_new_is_read(
    tiny32: TextEncoder, told: Library, monkeypatch: pytest.MonkeyPatch
):
    freed: list[int] = []
    monkeypatch.setattr(view, "give_back_freed", lambda: freed.append(1))
    monkeypatch.setattr(view, "AT_ONCE", 4)
    made = LibraryView(tiny32, tiny32, told)
    before = made.current().shortlist.catalogue
    assert freed == [1], "much was read"
    told.refit(told.get("mood"), replace(told.get("mood").read_artefacts(), centroids=None))
    after = made.current().shortlist.catalogue
    assert [a is b for a, b in zip(before.experts, after.experts, strict=True)] == [
        id != "mood" for id in after.ids
    ]
    assert freed == [1]


def test_constants_that_are_damaged_later_leave_the_former_in_force(
    tiny32: TextEncoder, told: Library
):
    made = LibraryView(tiny32, tiny32, told)
    before = made.current()
    constants = told.root / CALIBRATION
    constants.write_text(constants.read_text().replace('"temperature"', '"temperatuse"'))
    told.refresh()
    after = made.current()
    assert after.generation != before.generation
    assert after.calibration == before.calibration
    assert "temperatuse" in (after.note or "")
    with pytest.raises(CorruptExpert, match="temperatuse"):
        LibraryView(tiny32, tiny32, told).current()
