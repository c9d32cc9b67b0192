"""Kind `bottleneck` equals its definition, written here once more with plain torch hooks."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from experts.backbones import TextEncoder
from experts.errors import MixError
from experts.kinds import KINDS
from experts.mix import Mix, RowMix, build_mix
from experts.stacks import stack_experts
from experts.token_routing import TokenRouter
from experts.weights import ExpertWeights

EXACT = {"rtol": 1e-9, "atol": 1e-9}
BOTTLENECK = KINDS["bottleneck"]
OUTPUT, LATER = "encoder.layer.0.output.dense", "encoder.layer.1.output.dense"

Make = Callable[..., ExpertWeights]
Rows = list[list[int]]


@pytest.fixture
def pair(make_expert: Make) -> list[ExpertWeights]:
    """Two experts of one merge group, with the gates that token routing reads."""
    return [make_expert("bottleneck", id, 6, vectors=("gate",)) for id in ("a", "b")]


def by_definition(
    encoder: TextEncoder,
    experts: list[ExpertWeights],
    rows: Rows,
    weights: Callable[[str, Tensor], Tensor],
) -> Tensor:
    """Pooled states with `y + sum_k w_k (U_k relu(sum_k w_k (D_k y + b_k)) + c_k)` at every site.

    `weights(site, x_BTD)` gives (B, T, K).
    """
    model = copy.deepcopy(encoder.model)

    def hook(site: str):
        parts = [e.sites[site] for e in experts]

        def add(_module: nn.Module, args: tuple[Tensor], y_BTO: Tensor) -> Tensor:
            w_BTK = weights(site, args[0])
            downs = torch.stack([y_BTO @ p["D"].T + p["b"] for p in parts], dim=-1)
            h_BTH = torch.relu((downs * w_BTK.unsqueeze(2)).sum(-1))
            ups = torch.stack([h_BTH @ p["U"].T + p["c"] for p in parts], dim=-1)
            return y_BTO + (ups * w_BTK.unsqueeze(2)).sum(-1)

        return add

    for site in experts[0].sites:
        model.get_submodule(site).register_forward_hook(hook(site))
    return TextEncoder("twin", model, encoder.tokenizer, encoder.pooling, 128).run(rows)


def run(encoder: TextEncoder, rows: Rows, mix: RowMix, experts: list[ExpertWeights]) -> Tensor:
    return encoder.run(rows, _mix(len(rows), mix, experts))


def _mix(
    count: int, row: RowMix, experts: list[ExpertWeights], router: TokenRouter | None = None
) -> Mix:
    return build_mix([row] * count, [stack_experts(experts)], router)


def test_it_acts_after_both_output_projections(pair: list[ExpertWeights]) -> None:
    assert set(pair[0].sites) == {
        f"encoder.layer.{i}.{name}"
        for i in range(2)
        for name in ("attention.output.dense", "output.dense")
    }


def test_merging_per_sample_is_in_parameter_space(
    pair: list[ExpertWeights], encoder64: TextEncoder, rows: Rows
) -> None:
    w_K = torch.tensor([0.7, 0.3], dtype=torch.float64)
    expected = by_definition(
        encoder64, pair, rows, lambda _site, x_BTD: w_K.expand(*x_BTD.shape[:2], 2)
    )
    ours = run(encoder64, rows, RowMix.of({"a": 0.7, "b": 0.3}), pair)
    torch.testing.assert_close(ours, expected, **EXACT)
    merged = BOTTLENECK.merge(pair, [0.7, 0.3])
    alone = run(encoder64, rows, RowMix.of({merged.id: 1.0}), [merged])
    torch.testing.assert_close(alone, expected, **EXACT)


class Gate:
    """A token router: the gate's product with the token."""

    artefact = "gate"

    def scores(self, x_ND: Tensor, V_ED: Tensor, use: object) -> Tensor:
        return x_ND @ V_ED.T


def test_merging_per_token_is_in_parameter_space(
    pair: list[ExpertWeights], encoder64: TextEncoder, rows: Rows
) -> None:
    def gates(site: str, x_BTD: Tensor) -> Tensor:
        V_KD = torch.stack([e.vectors["gate"][site] for e in pair])
        return torch.softmax(x_BTD @ V_KD.T, dim=-1)

    row = RowMix(RowMix.of({"a": 0.5, "b": 0.5}).parts, per_token=True, top_k=2)
    ours = encoder64.run(rows, _mix(len(rows), row, pair, Gate()))
    torch.testing.assert_close(ours, by_definition(encoder64, pair, rows, gates), **EXACT)


def test_mixing_outputs_instead_is_something_else(pair: list[ExpertWeights]) -> None:
    site = "encoder.layer.0.output.dense"
    y_ND = torch.randn(50, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def update(p: dict[str, Tensor]) -> Tensor:
        return torch.relu(y_ND @ p["D"].T + p["b"]) @ p["U"].T + p["c"]

    merged = BOTTLENECK.merge(pair, [0.5, 0.5])
    of_outputs = sum(0.5 * update(dict(e.sites[site])) for e in pair)
    exact = update(dict(merged.sites[site]))
    assert (of_outputs - exact).norm() > 0.3 * exact.norm()


def test_strength_scales_the_merged_experts_output(
    pair: list[ExpertWeights], encoder64: TextEncoder, rows: Rows
) -> None:
    merged = BOTTLENECK.merge(pair, [0.5, 0.5])
    louder = {
        site: {p: t * 1.7 if p in "Uc" else t for p, t in parts.items()}
        for site, parts in merged.sites.items()
    }
    expected = ExpertWeights("louder", "bottleneck", BOTTLENECK.group(louder), louder)
    torch.testing.assert_close(
        run(encoder64, rows, RowMix.of({"a": 0.5, "b": 0.5}, strength=1.7), pair),
        run(encoder64, rows, RowMix.of({"louder": 1.0}), [expected]),
        **EXACT,
    )


def test_what_is_written_is_read_again(
    pair: list[ExpertWeights], read: Callable[..., ExpertWeights]
) -> None:
    again = read(BOTTLENECK.write(pair[0]), "a")
    assert again.group == pair[0].group
    for site, parts in pair[0].sites.items():
        assert all(torch.equal(again.sites[site][part], t) for part, t in parts.items())


def test_negative_weights_are_refused(pair: list[ExpertWeights]) -> None:
    with pytest.raises(MixError, match="negative"):
        BOTTLENECK.merge(pair, [1.5, -0.5])
    with pytest.raises(MixError, match="negative"):
        _mix(1, RowMix.of({"a": 1.5, "b": -0.5}), pair)


def test_other_widths_or_sites_are_another_group(make_expert: Make) -> None:
    narrow, wide = make_expert("bottleneck", "n", 3), make_expert("bottleneck", "w", 4)
    assert narrow.group != wide.group
    with pytest.raises(MixError, match="widths"):
        BOTTLENECK.merge([narrow, wide], [0.5, 0.5])
    with pytest.raises(MixError, match="one merge group"):
        stack_experts([narrow, wide])
    site = next(iter(narrow.sites))
    with pytest.raises(MixError, match="sites"):
        BOTTLENECK.stack([narrow.sites[site], None])


def test_a_groups_text_is_stable_and_tells_widths_and_sites_apart(make_expert: Make) -> None:
    def text(**ranks: object) -> str:
        return BOTTLENECK.group_text(make_expert("bottleneck", "x", **ranks).sites)

    assert text(rank=3) == "bottleneck/3/766b3b438f3f"
    assert len({text(rank=3), text(rank=4), text(rank={OUTPUT: 3}), text(rank={LATER: 3})}) == 4
    one = make_expert("bottleneck", "one", {OUTPUT: 3, LATER: 4})
    other = dict(reversed(one.sites.items()))
    assert BOTTLENECK.group_text(other) == BOTTLENECK.group_text(one.sites)
    assert BOTTLENECK.group_text(other).startswith("bottleneck/3+4/")


def test_a_fresh_expert_has_almost_no_effect(encoder64: TextEncoder, rows: Rows) -> None:
    targets = BOTTLENECK.target_sites(encoder64.sites.values())
    fresh = BOTTLENECK.initial(targets, rank=8, generator=torch.Generator().manual_seed(0))
    sites = {site: {p: t.double() for p, t in parts.items()} for site, parts in fresh.items()}
    expert = ExpertWeights("fresh", "bottleneck", BOTTLENECK.group(sites), sites)
    changed = run(encoder64, rows, RowMix.of({"fresh": 1.0}), [expert])
    assert 0 < (changed - encoder64.run(rows)).abs().max() < 0.01
