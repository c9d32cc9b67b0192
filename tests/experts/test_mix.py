"""The mix in force: mixed batches equal single requests, token mode equals merge mode."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from experts.backbones import TextEncoder, open_backbone
from experts.errors import BackboneError, MixError
from experts.kernels import Use, scores
from experts.mix import Mix, Part, RowMix, build_mix
from experts.stacks import Stack, StackCache
from experts.weights import ExpertWeights

EXACT = {"rtol": 1e-9, "atol": 1e-9}
KINDS = ("lora", "bottleneck")

Make = Callable[..., ExpertWeights]
Rows = list[list[int]]


class Constant:
    """A token router without an opinion."""

    artefact = ""

    def scores(self, x_ND: Tensor, V_ED: Tensor, use: Use) -> Tensor:
        return x_ND.new_zeros(x_ND.shape[0], use.width)


class Gate:
    """A token router: `gate . x`."""

    artefact = "gate"

    def scores(self, x_ND: Tensor, V_ED: Tensor, use: Use) -> Tensor:
        return scores(x_ND, V_ED, use)


@pytest.fixture(scope="module")
def stacks(make_expert: Make) -> list[Stack]:
    """Three experts of each kind with gates: ids l0 l1 l2 and b0 b1 b2."""
    experts = [
        make_expert(kind, f"{kind[0]}{i}", 2 + i if kind == "lora" else 5, vectors=("gate",))
        for kind in KINDS
        for i in range(3)
    ]
    return StackCache().get(experts)


def token_row(ids: str, top_k: int = 2, strength: float = 1.0, fixed: str = "") -> RowMix:
    """Token routing among experts, with priors that differ; `fixed` ones keep their weight."""
    names, kept = ids.split(), fixed.split()
    parts = tuple(
        Part(e, 1 / len(names), prior=0.3 * i, fixed=e in kept) for i, e in enumerate(names)
    )
    return RowMix(parts, strength, per_token=True, top_k=top_k)


MIXED = (
    RowMix.of({"l0": 0.6, "l2": 0.4}),
    token_row("b0 b1 b2"),
    RowMix(),
    token_row("l0 l1 l2", top_k=1, strength=0.8, fixed="l1"),
    RowMix.of({"b1": 1.0}, strength=0.5),
)


def test_a_mixed_batch_is_its_requests_one_by_one(
    stacks: list[Stack], encoder64: TextEncoder, rows: Rows
) -> None:
    together = encoder64.run(rows, build_mix(MIXED, stacks, Gate()))
    for i, (row, mix) in enumerate(zip(rows, MIXED, strict=True)):
        alone = encoder64.run([row], build_mix([mix], stacks, Gate()))
        torch.testing.assert_close(together[i : i + 1], alone, **EXACT)
        assert mix == RowMix() or (alone - encoder64.run([row])).abs().max() > 1e-3


def test_rows_without_experts_are_the_bare_backbone_bit_for_bit(
    stacks: list[Stack], encoder64: TextEncoder, rows: Rows
) -> None:
    bare = encoder64.run(rows)
    assert torch.equal(encoder64.run(rows, build_mix([RowMix()] * 5, stacks)), bare)
    assert torch.equal(encoder64.run(rows, Mix((), 5)), bare)
    mixed = encoder64.run(rows, build_mix(MIXED, stacks, Gate()))
    assert torch.equal(mixed[2], bare[2])
    assert not torch.equal(mixed[1], bare[1])


def test_a_float32_mix_leaves_bare_rows_bit_for_bit(make_expert: Make, texts: tuple[str]) -> None:
    encoder = open_backbone("tiny-random")
    whole = make_expert("lora", "f32")
    sites = {s: {p: t.float() for p, t in ts.items()} for s, ts in whole.sites.items()}
    stack = StackCache().get([ExpertWeights("f32", "lora", whole.group, sites)])
    mixes = [RowMix.of({"f32": 1.0}), RowMix(), RowMix(), RowMix.of({"f32": 0.5}), RowMix()]
    token_rows = encoder.tokenize(texts)
    bare, mixed = encoder.run(token_rows), encoder.run(token_rows, build_mix(mixes, stack))
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed[[1, 2, 4]], bare[[1, 2, 4]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_token_mode_with_constant_scores_is_merge_mode(
    kind: str, strength: float, stacks: list[Stack], encoder64: TextEncoder, rows: Rows
) -> None:
    weights = dict(zip((f"{kind[0]}{i}" for i in range(3)), (0.5, 0.2, 0.3), strict=True))
    parts = tuple(Part(e, 0.0, prior=math.log(w)) for e, w in weights.items())
    by_token = RowMix(parts, strength, per_token=True, top_k=3)
    merged = RowMix.of(weights, strength)
    torch.testing.assert_close(
        encoder64.run(rows, build_mix([by_token] * 5, stacks, Constant())),
        encoder64.run(rows, build_mix([merged] * 5, stacks)),
        **EXACT,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fixed", ["0", "2", "0 1"])
def test_fixed_parts_and_constant_scores_are_merge_mode_too(
    kind: str, fixed: str, stacks: list[Stack], encoder64: TextEncoder, rows: Rows
) -> None:
    weights = dict(zip((f"{kind[0]}{i}" for i in range(3)), (0.5, 0.2, 0.3), strict=True))
    parts = tuple(Part(e, w, prior=math.log(w), fixed=e[1] in fixed) for e, w in weights.items())
    torch.testing.assert_close(
        encoder64.run(
            rows, build_mix([RowMix(parts, per_token=True, top_k=3)] * 5, stacks, Constant())
        ),
        encoder64.run(rows, build_mix([RowMix.of(weights)] * 5, stacks)),
        **EXACT,
    )


def test_a_fixed_part_has_its_weight_at_every_token_and_takes_no_place_of_the_top_k(
    stacks: list[Stack], encoder64: TextEncoder, rows: Rows
) -> None:
    heard: list[Use] = []
    row = token_row("l0 l1 l2", top_k=1, fixed="l1")
    mix = build_mix([row], stacks, Gate(), lambda site, use: heard.append(use))
    encoder64.run(rows[:1], mix)
    for use in heard:
        dense_NE = use.dense_weight_NE
        torch.testing.assert_close(dense_NE.sum(1), torch.ones(use.tokens).double(), **EXACT)
        torch.testing.assert_close(dense_NE[:, 1], torch.full((use.tokens,), 1 / 3).double())
        assert (dense_NE[:, [0, 2]] > 0).sum(1).eq(1).all()
    assert len({int(u.dense_weight_NE[:, [0, 2]].argmax(1).sum()) for u in heard}) > 1


def test_what_token_routing_needs(make_expert: Make) -> None:
    stack = StackCache().get(
        [make_expert("lora", "a", vectors=("gate",)), make_expert("lora", "b")]
    )
    build_mix([token_row("a b", fixed="b")], stack, Gate())
    with pytest.raises(MixError, match="'gate'") as refused:
        build_mix([token_row("a b")], stack, Gate())
    assert refused.value.details["experts"] == ["b"]
    with pytest.raises(MixError, match="at least one"):
        build_mix([token_row("a b", fixed="a b")], stack, Gate())


@pytest.mark.parametrize("kind", KINDS)
def test_explicit_weights_map_to_strength(
    kind: str, stacks: list[Stack], encoder64: TextEncoder, rows: Rows
) -> None:
    """Doubling the weights of LoRA experts is strength 2; strength 0 is the bare backbone."""
    pair = {f"{kind[0]}0": 0.5, f"{kind[0]}1": 0.5}
    silent = encoder64.run(rows, build_mix([RowMix.of(pair, strength=0.0)] * 5, stacks))
    assert torch.equal(silent, encoder64.run(rows))
    if kind == "lora":
        louder = build_mix([RowMix.of({e: 2 * w for e, w in pair.items()})] * 5, stacks)
        strong = build_mix([RowMix.of(pair, strength=2.0)] * 5, stacks)
        torch.testing.assert_close(
            encoder64.run(rows, louder), encoder64.run(rows, strong), **EXACT
        )


def test_rows_re_indexes_every_table(
    stacks: list[Stack], encoder64: TextEncoder, rows: Rows
) -> None:
    index = torch.tensor([3, 3, 0, 2, 1, 4, 1])
    chosen = [rows[i] for i in index]
    re_indexed = build_mix(MIXED, stacks, Gate()).rows(index)
    built_so = build_mix([MIXED[i] for i in index], stacks, Gate())
    assert re_indexed.size == 7
    assert torch.equal(encoder64.run(chosen, re_indexed), encoder64.run(chosen, built_so))


def test_the_recorder_hears_the_weights_in_force(
    stacks: list[Stack], encoder64: TextEncoder, rows: Rows
) -> None:
    heard: dict[str, Use] = {}
    mixes = [token_row("l0 l1 l2"), RowMix.of({"l1": 1.0})]
    mix = build_mix(mixes, stacks, Gate(), lambda site, use: heard.update({site: use}))
    encoder64.run(rows[:2], mix)
    assert set(heard) == next(set(s.sites) for s in stacks if s.kind == "lora")
    for use in heard.values():
        assert use.per_token
        torch.testing.assert_close(use.weight.sum(1), torch.ones(use.tokens).double(), **EXACT)
        assert (use.weight[: use.tokens_per_row] > 0).sum(1).eq(2).all()
        assert (use.dense_weight_NE[use.tokens_per_row :, 1] == 1).all()


@pytest.mark.parametrize("mixes", [MIXED, (token_row("l0 l1"), RowMix(), token_row("b0 b2"))])
def test_gradients_stay_finite_beside_rows_of_another_group(
    mixes: tuple[RowMix, ...], stacks: list[Stack], encoder64: TextEncoder, rows: Rows
) -> None:
    """A softmax over no candidates at all would be NaN there, and NaN times 0 stays NaN."""
    routed = [
        Stack(s.kind, s.index, s.sites,
              {a: {n: v.clone().requires_grad_() for n, v in by_site.items()}
               for a, by_site in s.vectors.items()}, s.owners)
        for s in stacks
    ]  # fmt: skip
    leaves = [v for s in routed for v in s.vectors["gate"].values()]
    pooled = encoder64.run(rows[: len(mixes)], build_mix(mixes, routed, Gate()))
    grads = torch.autograd.grad(pooled[:, 0].sum(), leaves, allow_unused=True)
    assert any(g is not None and g.abs().max() > 0 for g in grads)
    assert all(g is None or g.isfinite().all() for g in grads)


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_numbers_that_cannot_be_weights(bad: float, stacks: list[Stack]) -> None:
    for row in (
        RowMix.of({"l0": bad}),
        RowMix.of({"l0": 1.0}, strength=bad),
        RowMix((Part("l0", 1.0, prior=math.nan),), per_token=True),
    ):
        with pytest.raises(MixError, match=r"finite"):
            build_mix([RowMix(), row], stacks, Constant())


def test_rows_that_cannot_be_mixed(stacks: list[Stack], make_expert: Make) -> None:
    with pytest.raises(MixError, match="different merge groups"):
        build_mix([RowMix.of({"l0": 0.5, "b0": 0.5})], stacks)
    with pytest.raises(MixError, match="not loaded"):
        build_mix([RowMix.of({"nobody": 1.0})], stacks)
    with pytest.raises(MixError, match="no token router"):
        build_mix([token_row("l0 l1")], stacks)
    ungated = StackCache().get([make_expert("lora", "l0"), make_expert("lora", "l1")])
    with pytest.raises(MixError, match="'gate'"):
        build_mix([token_row("l0 l1")], ungated, Gate())


def test_a_mix_of_another_size_is_refused(
    stacks: list[Stack], encoder64: TextEncoder, rows: Rows
) -> None:
    with pytest.raises(BackboneError, match="5 rows and the mix has 2"):
        encoder64.run(rows, build_mix([RowMix.of({"l0": 1.0})] * 2, stacks))


def test_mixes_do_not_nest_and_always_clear(
    stacks: list[Stack], encoder64: TextEncoder, rows: Rows
) -> None:
    mix = build_mix([RowMix.of({"l0": 1.0})] * 5, stacks)
    bare = encoder64.run(rows)
    with encoder64.hooks.mixing(mix):
        with pytest.raises(BackboneError, match="nest"), encoder64.hooks.mixing(None):
            pass
        with pytest.raises(BackboneError, match="nest"):
            encoder64.run(rows)
    with pytest.raises(ZeroDivisionError), encoder64.hooks.mixing(mix):
        raise ZeroDivisionError
    assert torch.equal(encoder64.run(rows), bare)
