"""Statements placed on a label set."""

import pytest
import torch
from torch.nn import functional as F

from experts.manifest import Label
from experts.statements import StatementMap, truth_table

LABELS = (
    Label(value="a", statements=("a1", "a2"), negations=("not a",)),
    Label(value="b", statements=("b1",), negations=("not b1", "not b2")),
    Label(value="c", statements=("c1",)),
)
TABLE = torch.tensor(
    [[1, 0, 0], [1, 0, 0], [0, 1, 1], [0, 1, 0], [1, 0, 1], [1, 0, 1], [0, 0, 1]]
).float()


@pytest.fixture
def known_SD():
    """One unit vector for each statement of `LABELS`, far from each other."""
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.linalg.qr(torch.randn(32, 7, generator=generator)).Q.T, dim=-1)


def test_an_assertion_holds_for_its_label_and_a_denial_for_all_others():
    assert torch.equal(truth_table(LABELS), TABLE)


def test_an_experts_own_statements_land_where_they_hold(known_SD):
    placed_SL = StatementMap.identity(32).place(known_SD, known_SD, TABLE)
    torch.testing.assert_close(placed_SL, TABLE, rtol=0, atol=1e-6)


def test_length_does_not_matter_and_scale_sharpens(known_SD):
    between_1D = F.normalize(2 * known_SD[:1] + known_SD[3:4], dim=-1)
    soft, sharp = (
        StatementMap(torch.eye(32), scale).place(between_1D, known_SD, TABLE)[0]
        for scale in (3.0, 30.0)
    )
    assert soft[0] < sharp[0]
    assert sharp[0] > 0.99
    longer = StatementMap(torch.eye(32), 30.0).place(5 * between_1D, known_SD, TABLE)[0]
    torch.testing.assert_close(longer, sharp)


def test_the_map_decides_what_is_near(known_SD):
    """A map that swaps two statements' directions swaps where sentences land."""
    swap_DD = torch.eye(32)
    difference_D = F.normalize(known_SD[0] - known_SD[3], dim=0)
    swap_DD -= 2 * torch.outer(difference_D, difference_D)
    placed = StatementMap(swap_DD, 30.0).place(known_SD[:1] @ swap_DD, known_SD, TABLE)
    torch.testing.assert_close(placed[0], TABLE[3], rtol=0, atol=1e-6)


def test_a_placement_is_a_share_of_truth(known_SD):
    generator = torch.Generator().manual_seed(1)
    asked_QD = F.normalize(torch.randn(50, 32, generator=generator), dim=-1)
    placed_QL = StatementMap.identity(32).place(asked_QD, known_SD, TABLE)
    assert placed_QL.shape == (50, 3)
    assert placed_QL.min() >= 0
    assert placed_QL.max() <= 1 + 1e-6


def test_a_statement_and_its_denial_share_all_of_a_two_label_task(known_SD):
    """For two labels each row of the table sums to 1, so placements do."""
    labels = (
        Label(value="a", statements=("a",), negations=("not a",)),
        Label(value="b", statements=("b",), negations=("not b",)),
    )
    placed_QL = StatementMap.identity(32).place(known_SD[4:], known_SD[:4], truth_table(labels))
    torch.testing.assert_close(placed_QL.sum(dim=1), torch.ones(3))
