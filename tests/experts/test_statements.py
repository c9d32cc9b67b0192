"""Statements placed on a label set."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from experts.backbones.tiny import tiny_encoder
from experts.manifest import Label
from experts.statements import StatementMap, read_statements, sentences, truth_table

LABELS = (
    Label(value="a", statements=("a1", "a2"), negations=("not a",)),
    Label(value="b", statements=("b1",), negations=("not b1", "not b2")),
    Label(value="c", statements=("c1",)),
)
TABLE = torch.tensor(
    [[1, 0, 0], [1, 0, 0], [0, 1, 1], [0, 1, 0], [1, 0, 1], [1, 0, 1], [0, 0, 1]]
).float()


@pytest.fixture
def known_SF():
    """One unit embedding for each statement of `LABELS`, far from each other, and no features."""
    generator = torch.Generator().manual_seed(0)
    return read(F.normalize(torch.linalg.qr(torch.randn(32, 7, generator=generator)).Q.T, dim=-1))


def read(embedding_SD):
    """Sentences of these embeddings whose half-way features say nothing."""
    return torch.cat([embedding_SD, torch.zeros_like(embedding_SD)], dim=1)


def plain(scale):
    return replace(StatementMap.identity(32), scale=scale)


def test_an_assertion_holds_for_its_label_and_a_denial_for_all_others():
    assert torch.equal(truth_table(LABELS), TABLE)


def test_an_experts_own_statements_land_where_they_hold(known_SF):
    placed_SL = StatementMap.identity(32).place(known_SF, known_SF, TABLE)
    torch.testing.assert_close(placed_SL, TABLE, rtol=0, atol=1e-6)


def test_length_does_not_matter_and_scale_sharpens(known_SF):
    between_1F = F.normalize(2 * known_SF[:1] + known_SF[3:4], dim=-1)
    soft, sharp = (plain(scale).place(between_1F, known_SF, TABLE)[0] for scale in (3.0, 30.0))
    assert soft[0] < sharp[0]
    assert sharp[0] > 0.99
    longer = plain(30.0).place(5 * between_1F, known_SF, TABLE)[0]
    torch.testing.assert_close(longer, sharp)


def test_the_map_decides_what_is_near(known_SF):
    """A map that swaps two statements' directions swaps where sentences land."""
    swap_DD = torch.eye(32)
    difference_D = F.normalize(known_SF[0, :32] - known_SF[3, :32], dim=0)
    swap_DD -= 2 * torch.outer(difference_D, difference_D)
    asked_1F = read(known_SF[:1, :32] @ swap_DD)
    map_FD = torch.cat([swap_DD, torch.zeros(32, 32)])
    placed = StatementMap(map_FD, torch.zeros(32), 30.0).place(asked_1F, known_SF, TABLE)
    torch.testing.assert_close(placed[0], TABLE[3], rtol=0, atol=1e-6)


def test_a_placement_is_a_share_of_truth(known_SF):
    generator = torch.Generator().manual_seed(1)
    asked_QF = read(F.normalize(torch.randn(50, 32, generator=generator), dim=-1))
    placed_QL = StatementMap.identity(32).place(asked_QF, known_SF, TABLE)
    assert placed_QL.shape == (50, 3)
    assert placed_QL.min() >= 0
    assert placed_QL.max() <= 1 + 1e-6


def test_a_statement_and_its_denial_share_all_of_a_two_label_task(known_SF):
    """For two labels each row of the table sums to 1, so placements do."""
    labels = (
        Label(value="a", statements=("a",), negations=("not a",)),
        Label(value="b", statements=("b",), negations=("not b",)),
    )
    placed_QL = StatementMap.identity(32).place(known_SF[4:], known_SF[:4], truth_table(labels))
    torch.testing.assert_close(placed_QL.sum(dim=1), torch.ones(3))


def test_sentences_stand_in_the_order_of_the_table():
    assert sentences(LABELS) == ["a1", "a2", "not a", "b1", "not b1", "not b2", "c1"]


def test_features_and_a_shift_can_tell_what_embeddings_cannot(known_SF):
    """Two sentences of one meaning, a word apart: the half-way columns decide, once centred."""
    said_D, word_D = known_SF[0, :32], known_SF[1, :32]
    pair_2F = torch.stack([torch.cat([said_D, said_D + s * word_D]) for s in (1.0, -1.0)])
    table = torch.eye(2)
    blind = StatementMap.identity(32).place(pair_2F, pair_2F, table)
    torch.testing.assert_close(blind, torch.full((2, 2), 0.5))
    map_FD = torch.cat([torch.zeros(32, 32), torch.eye(32)])
    placed = StatementMap(map_FD, -said_D, 30.0).place(pair_2F, pair_2F, table)
    torch.testing.assert_close(placed, table, rtol=0, atol=1e-6)


def test_what_is_read_is_the_embedding_and_the_features():
    backbone, texts = tiny_encoder(), ["It is loud.", "It is not loud."]
    read_SF = read_statements(backbone, texts)
    torch.testing.assert_close(read_SF[:, : backbone.width], backbone.embed(texts))
    torch.testing.assert_close(
        read_SF[:, backbone.width :], backbone.halfway(backbone.features(texts))
    )
