"""Synthetic experts are routed to as real ones are: a query's own expert is the nearest."""

import pytest
import torch

from benchmarks import many
from benchmarks.many import Maker, name_of
from experts.backbones import open_backbone
from experts.library import Library
from routers.calibration import Calibration
from routers.metric import LEAST_SEEN
from routers.request import REQUEST_ROUTERS
from server.engine.view import LibraryView

COUNT = 12


@pytest.fixture(scope="module")
def maker():
    return Maker(open_backbone("demo"))


@pytest.fixture(scope="module")
def built(maker, tmp_path_factory):
    """What routers see of a few, all of two topics."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(many, "KEPT", tmp_path_factory.mktemp("libraries"))
        patch.setattr(many, "TOPICS", 2)
        root = maker.library(COUNT)
        stamps = {path: path.stat().st_mtime_ns for path in root.glob("*/*")}
        assert maker.library(COUNT) == root
        assert {path: path.stat().st_mtime_ns for path in root.glob("*/*")} == stamps, "kept"
        library = Library.open(root, fingerprint=maker.backbone.fingerprint)
        yield LibraryView(maker.backbone, maker.backbone, library).current()


def test_they_tell_of_their_inputs_and_the_library_has_constants(maker, built):
    catalogue = built.shortlist.catalogue
    assert catalogue.ids == tuple(map(name_of, range(COUNT)))
    assert all(e.gaussian is not None and e.gaussian.rows == 8 for e in catalogue.experts)
    assert built.calibration != Calibration()
    torch.testing.assert_close(built.metric.whitening_FF, maker.metric.whitening_FF)
    entry = built.snapshot.entries[name_of(3)]
    artefacts = entry.read_artefacts()
    assert artefacts.inputs.shape == (9, maker.backbone.feature_width)
    assert artefacts.seen >= LEAST_SEEN
    spread_RF = artefacts.inputs[1:] @ maker.metric.whitening_FF
    beyond_R = torch.linalg.svdvals(spread_RF).square()
    torch.testing.assert_close(beyond_R, torch.tensor(many.BEYOND), rtol=0.02, atol=0.02)


def test_a_query_is_one_that_could_be_asked(maker):
    query, width = maker.query(3, 0), maker.backbone.width
    halves_2D = query.input_F.view(2, width)
    torch.testing.assert_close(halves_2D.norm(dim=1), torch.ones(2))
    assert torch.equal(query.input_D, halves_2D[1])
    assert torch.equal(maker.query(3, 0).input_F, query.input_F)
    assert not torch.equal(maker.query(3, 1).input_F, query.input_F)
    assert maker.query(3, 0, sentence=False).instruction_D is None


@pytest.mark.parametrize("sentence", [True, False])
def test_a_querys_own_expert_is_the_nearest(maker, built, sentence, monkeypatch):
    monkeypatch.setattr(many, "TOPICS", 2)
    catalogue, router = built.shortlist.catalogue, REQUEST_ROUTERS["evidence"]
    best = [
        int(router.score(maker.query(i, s, sentence=sentence), catalogue, built.calibration)
            .score_E.argmax())
        for i in range(COUNT) for s in range(4)
    ]  # fmt: skip
    hits = sum(found == i // 4 for i, found in enumerate(best))
    assert hits >= 46  # of 48; one may lie nearer to another of its topic
