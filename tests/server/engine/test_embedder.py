"""An embedder beside the backbone: it routes by words, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experts.artefacts import Artefacts
from experts.library import Library
from experts.manifest import Manifest
from routers.calibration import FOREIGN, Calibration
from routers.fitting.variation import Variation
from routers.fitting.wording import FOLDER, Wordings
from server.build import build_engine
from server.engine.messages import Choice, Outcome, Question, RoutingOptions, Sample
from server.engine.run import Engine
from server.settings import Settings

CHOICES = (Choice("happy"), Choice("gloomy"))
ASKED = Question("choice", "Tell the mood of the writer.", CHOICES)
SORT = "choices,input,instruction"


def one(engine: Engine, question: Question = ASKED, **options: object) -> Outcome | Exception:
    sample = Sample("What a lovely day!", question, options=RoutingOptions(**options))
    (result,) = engine.run([sample])
    return result


@pytest.fixture
def apart(rich_library: Path, sentence_model: Path):
    """Build the engine over the library with the random model as embedder."""

    def build(embedder: str = str(sentence_model), **more: object) -> Engine:
        settings = Settings(
            backbone="tiny-random", embedder=embedder, library=rich_library, threads=1
        )
        return build_engine(settings, **more)

    return build


def test_words_are_compared_by_the_embedder(apart, rich):
    engine = apart()
    assert engine.embedder.width == 48 != engine.backbone.width
    views = {c.id: c.views for c in one(engine).trace.candidates}
    words = engine.embedder.embed(["Tell the mood of the writer.", "happy", "gloomy"])
    assert views["mood"]["instruction"] == pytest.approx(1.0, abs=1e-3)
    for id, said in (
        ("weather", "Say what the weather is like."),
        ("quiz", "Answer the question."),
    ):
        cosine = float(engine.embedder.embed([said])[0] @ words[0])
        assert views[id]["instruction"] == pytest.approx(cosine, abs=1e-3)
    before = {c.id: c.views for c in one(rich).trace.candidates}
    for id in views:
        assert views[id]["input"] == before[id]["input"], "inputs are the backbone's to see"


def test_answers_are_the_backbones(apart, rich):
    """Forced, an expert answers to the bit as it does where words are shared."""
    engine = apart()
    for question in (ASKED, Question("predicate", "It is happy.")):
        got, want = (one(e, question, experts={"mood": 1.0}).answer for e in (engine, rich))
        assert got == want


def test_sharing_costs_nothing(rich, rich_library):
    assert rich.embedder is rich.backbone
    assert rich.asked is rich.words
    assert not (rich_library / FOLDER).exists()


def test_an_interrupted_opening_is_gone_on_with(apart, monkeypatch):
    seen: list[str] = []
    see = Wordings.of

    def interrupted(wordings: Wordings, manifest: Manifest, artefacts: Artefacts) -> Artefacts:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(manifest.id)
        return see(wordings, manifest, artefacts)

    monkeypatch.setattr(Wordings, "of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        apart()
    monkeypatch.undo()
    engine = apart()
    wordings, entries = engine.routing.view.wordings, engine.library.entries
    assert wordings.missing(entries.values()) == []
    assert len(list(wordings.folder.iterdir())) == len(entries)


def test_an_expert_added_by_a_server_with_another_embedder_is_routed(
    apart, rich_library, write_one, tmp_path
):
    shared, engine = apart("backbone"), apart()
    folder = write_one(tmp_path / "elsewhere", "mood")
    for e in (shared, engine):
        e.library.refresh()
    other = Library.open(
        rich_library, fingerprint=shared.backbone.fingerprint, backbone_id=shared.backbone.id
    )
    other.add(folder, "temper", sites=shared.backbone.sites, roots=(folder,))
    for e in (shared, engine):
        e.library.refresh()
        views = {c.id: c.views for c in one(e).trace.candidates}
        assert views["temper"]["instruction"] == pytest.approx(1.0, abs=1e-3)


def test_constants_of_another_embedder_are_told(apart, rich_library):
    constants = Calibration(version="abc", confidence={SORT: {"bias": -9.0}})
    metric = Variation.of({"mood": torch.randn(20, 64)}).metric()
    Library.open(rich_library).write_calibration(
        constants.model_dump(mode="json"), metric.tensors()
    )
    mine, theirs = one(apart("backbone")).trace, one(apart()).trace
    assert (mine.calibration_note, mine.fallback) == (None, "no_fit")
    assert theirs.calibration_note == FOREIGN
    assert theirs.confidence > mine.confidence
    assert theirs.calibration == "abc"


def test_constants_fitted_by_the_embedder_hold(apart, rich_library):
    engine = apart()
    constants = Calibration(
        version="abc", confidence={SORT: {"bias": -9.0}}, embedder=engine.embedder.fingerprint
    )
    Library.open(rich_library).write_calibration(constants.model_dump(mode="json"))
    assert one(apart()).trace.fallback == "no_fit"
    assert one(apart("backbone")).trace.calibration_note == FOREIGN


def test_words_must_fit_the_embedder_too(apart):
    """It reads 64 tokens and the backbone 128."""
    engine = apart()
    long = Question("choice", "Tell the mood. " * 5, CHOICES)
    error = one(engine, long)
    assert error.details == {"part": "instructions", "length": 77, "limit": 64}
    (cut,) = one(engine, long, truncate=True).trace.truncated
    assert (cut.part, cut.sent, cut.kept) == ("instructions", 77, 64)
    assert isinstance(one(apart("backbone"), long), Outcome)


def test_a_large_library_is_shortened_at_two_widths(apart, monkeypatch):
    monkeypatch.setattr("routers.shortlist.SMALL", 2)
    assert one(apart()).trace.candidates[0].id == "mood"


def test_vectors_of_another_width_are_left_out(apart, rich_library, write_one, caplog):
    """An expert that says it was fitted by this embedder, with vectors that were not."""
    fingerprint = apart().embedder.fingerprint
    write_one(rich_library, "mood", embedder=fingerprint)
    assert "mood" not in {c.id for c in one(apart()).trace.candidates}
    assert "other widths" in caplog.text
