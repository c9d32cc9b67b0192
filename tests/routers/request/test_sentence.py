"""GLIDER's release: the plain cosine of two descriptions, times a scale set by hand."""

from dataclasses import replace

import pytest
import torch

from routers.calibration import Calibration
from routers.catalogue import Catalogue
from routers.policy import Wishes, decide
from routers.presets import PRESETS
from routers.request import REQUEST_ROUTERS
from routers.types import Features
from tests.routers.conftest import units

ROUTER = REQUEST_ROUTERS["sentence"]
SENTENCE = units(1, 2)[0]


def test_the_score_is_the_cosine_with_the_nearest_instruction(catalogue_of):
    catalogue = catalogue_of(5)
    scores = ROUTER.score(Features(sentence_D=SENTENCE), catalogue, Calibration())
    by_hand = torch.stack([(e.artefacts.instructions @ SENTENCE).max() for e in catalogue.experts])
    torch.testing.assert_close(scores.score_E, by_hand)


def test_an_expert_without_instructions_has_the_mean(catalogue_of):
    experts = list(catalogue_of(4).experts)
    experts[1] = replace(experts[1], artefacts=replace(experts[1].artefacts, instructions=None))
    scores = ROUTER.score(Features(sentence_D=SENTENCE), Catalogue(experts), Calibration())
    others = [float(scores.score_E[i]) for i in (0, 2, 3)]
    assert float(scores.score_E[1]) == pytest.approx(sum(others) / 3)


def test_without_a_sentence_nobody_is_preferred(catalogue_of):
    assert ROUTER.score(Features(), catalogue_of(3), Calibration()).score_E.tolist() == [0, 0, 0]


@pytest.mark.parametrize("scale", [3, 100])
def test_every_token_adds_the_scaled_cosine_to_its_gates(catalogue_of, scale):
    """`s_i(u) = gate + scale * cos(g_i, q)`, softmax over the top 2 of all experts."""
    catalogue = catalogue_of(5)
    scores = ROUTER.score(Features(sentence_D=SENTENCE), catalogue, Calibration())
    preset = PRESETS[f"glider-{scale}"]
    selection = decide(preset, scores, catalogue, Calibration(), Wishes()).selection
    assert (selection.mode, selection.token_router, selection.top_k) == ("token", "gate", 2)
    cosine = dict(zip(catalogue.ids, scores.score_E.tolist(), strict=True))
    for expert in selection.experts:
        assert expert.prior == pytest.approx(scale * cosine[expert.id], rel=1e-5)
    if scale == 3:
        assert set(selection.ids) == set(catalogue.ids)
