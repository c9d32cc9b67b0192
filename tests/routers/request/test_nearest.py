"""Routers that look inputs up among what is stored: examples, or prototypes in their place."""

from dataclasses import replace

import torch

from routers.calibration import Calibration
from routers.catalogue import Catalogue
from routers.policy import Wishes, decide
from routers.presets import PRESETS
from routers.request import REQUEST_ROUTERS
from routers.request.nearest import VOTES
from routers.types import Features
from tests.routers.conftest import units

INPUT = units(1, 4)[0]
QUERY = Features(INPUT)


def with_examples(catalogue, banks):
    """The same experts; those named have these training examples."""
    return Catalogue(
        replace(e, artefacts=replace(e.artefacts, examples=banks[e.id])) if e.id in banks else e
        for e in catalogue.experts
    )


def score(name, catalogue):
    return REQUEST_ROUTERS[name].score(QUERY, catalogue, Calibration()).score_E


def test_nearest_is_the_greatest_cosine_with_what_is_stored(catalogue_of):
    catalogue = with_examples(catalogue_of(3), {"e01": units(50, 8)})
    own = [e.artefacts for e in catalogue.experts]
    stored = [own[0].centroids, own[1].examples, own[2].centroids]
    by_hand = torch.stack([(rows @ INPUT).max() for rows in stored])
    torch.testing.assert_close(score("nearest", catalogue), by_hand)


def test_an_example_beats_prototypes_that_only_come_near(catalogue_of):
    catalogue = with_examples(catalogue_of(3), {"e02": INPUT[None]})
    assert float(score("nearest", catalogue)[2]) > 0.999


def test_neighbours_are_counted_over_all_experts_together(catalogue_of):
    # One of e00's examples is the nearest of all; e01 has more of the nearest twenty.
    near = torch.nn.functional.normalize(INPUT + 0.1 * units(15, 7), dim=-1)
    banks = {"e00": torch.cat([INPUT[None], units(40, 9)]), "e01": near, "e02": units(40, 11)}
    catalogue = with_examples(catalogue_of(3), banks)
    assert int(score("nearest", catalogue).argmax()) == 0
    vote_E = score("neighbours", catalogue)
    assert int(vote_E.argmax()) == 1
    assert float(vote_E.sum()) <= 1 + 1e-6
    assert float(vote_E[1]) > 15 / VOTES * 0.9


def test_both_choose_one_expert(catalogue_of):
    catalogue = catalogue_of(5)
    for name, router in (("retrieval", "nearest"), ("neighbours", "neighbours")):
        assert PRESETS[name].request == router
        scores = REQUEST_ROUTERS[router].score(QUERY, catalogue, Calibration())
        selection = decide(PRESETS[name], scores, catalogue, Calibration(), Wishes()).selection
        assert selection.mode == "single"
        assert selection.ids == (catalogue.ids[int(scores.score_E.argmax())],)
