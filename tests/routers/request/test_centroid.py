"""The centroid router is DAM's, by hand."""

import pytest
import torch

from routers.calibration import Calibration
from routers.policy import Wishes, decide
from routers.presets import PRESETS
from routers.request import REQUEST_ROUTERS
from routers.types import Features
from tests.routers.conftest import units

INPUT = units(1, 4)[0]
QUERY = Features(INPUT)


def test_the_score_is_the_cosine_with_the_mean(catalogue_of):
    catalogue = catalogue_of(5)
    scores = REQUEST_ROUTERS["centroid"].score(QUERY, catalogue, Calibration())
    by_hand = torch.stack([e.artefacts.centroids[0] @ INPUT for e in catalogue.experts])
    torch.testing.assert_close(scores.score_E, by_hand)


def test_dam_merges_the_two_nearest_at_temperature_001(catalogue_of):
    """Cheng et al. 2024, section 3.2: softmax of the top 2 similarities at temperature 0.01."""
    catalogue = catalogue_of(5)
    scores = REQUEST_ROUTERS["centroid"].score(QUERY, catalogue, Calibration())
    selection = decide(PRESETS["dam"], scores, catalogue, Calibration(), Wishes()).selection
    cosine = {e.id: float(e.artefacts.centroids[0] @ INPUT) for e in catalogue.experts}
    first, second = sorted(cosine, key=cosine.__getitem__, reverse=True)[:2]
    odds = torch.tensor([cosine[first], cosine[second]], dtype=torch.float64).div(0.01).exp()
    assert selection.ids == (first, second)
    assert selection.mode == "merge"
    assert [e.weight for e in selection.experts] == pytest.approx(
        (odds / odds.sum()).tolist(), abs=1e-6
    )


def test_uniform_prefers_nobody_and_reads_nothing(catalogue_of):
    scores = REQUEST_ROUTERS["uniform"].score(Features(), catalogue_of(3), Calibration())
    assert scores.score_E.tolist() == [0, 0, 0]
    assert REQUEST_ROUTERS["uniform"].needs == frozenset()
