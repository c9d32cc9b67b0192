"""The mix in force during one forward pass: which experts act on which row, and how much.

A `Mix` is built for one batch, handed to the backbone, and forgotten. Where rows ask for weights
per token, a `TokenRouter` gives them; its implementations live in `routers`, not here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from experts.errors import MixError
from experts.kernels import Use
from experts.kinds import KINDS
from experts.stacks import Stack


@dataclass(frozen=True)
class Part:
    """One expert's share in a row."""

    expert: str
    weight: float
    prior: float = 0.0
    """Token mode: what the request router adds to the token router's score."""
    fixed: bool = False
    """Token mode: every token gives it `weight`; the token router shares out what is left."""


@dataclass(frozen=True)
class RowMix:
    """What acts on one row: experts of one merge group, with weights that sum to 1.

    `per_token` leaves the weights to the token router, which keeps the best `top_k` of the parts
    that are not fixed.
    No parts at all is the bare backbone.
    """

    parts: tuple[Part, ...] = ()
    strength: float = 1.0
    per_token: bool = False
    top_k: int = 2

    @classmethod
    def of(cls, weights: Mapping[str, float], strength: float = 1.0) -> RowMix:
        """A merge of experts at these weights."""
        return cls(tuple(Part(e, w) for e, w in weights.items()), strength)


class TokenRouter(Protocol):
    """Scores a row's candidates for every token of one site."""

    artefact: str
    """Which vectors of an expert it reads: "gate", "arrow", or "" for none of them."""

    def scores(self, x_ND: Tensor, V_ED: Tensor, use: Use) -> Tensor:
        """Scores (N, K) of each token's K candidates, before the request's prior.

        `V_ED` is zero where no expert of the stack has a vector at this site.
        """
        ...


class TokenRecorder(Protocol):
    """Listens to the weights a token router gave, for the trace."""

    def __call__(self, site: str, use: Use) -> None:
        """Called once a site with the weights per token in force."""
        ...


@dataclass(frozen=True, eq=False)
class GroupMix:
    """The rows' use of one merge group's stack. Rows of other groups have strength 0."""

    stack: Stack
    expert_BK: Tensor
    weight_BK: Tensor
    strength_B: Tensor
    per_token_B: Tensor
    prior_BK: Tensor
    keep_B1: Tensor
    fixed_BK: Tensor
    present_BK: Tensor
    router: TokenRouter | None
    recorder: TokenRecorder | None = None
    uses: dict[int, tuple[Tensor | None, Use]] = field(default_factory=dict)

    def apply(self, site: str, x_ND: Tensor, y_NO: Tensor, row_N: Tensor | None) -> Tensor:
        """The output of one site with this group's experts in force."""
        tensors = self.stack.sites.get(site)
        if tensors is None:
            return y_NO
        use = self._use(x_ND.shape[0], row_N)
        if self.router is not None:
            use = self._per_token(site, x_ND, use)
        return KINDS[self.stack.kind].apply(y_NO, x_ND, tensors, use, self.strength_B)

    @cached_property
    def all_per_token(self) -> bool:
        """Whether the token router weighs every row."""
        return bool(self.per_token_B.all())

    @cached_property
    def some_fixed(self) -> bool:
        """Whether a token-mode row has parts that keep their weight at every token."""
        return bool(self.fixed_BK.any())

    def rows(self, index: Tensor) -> GroupMix:
        """The same mix for rows `index` of this one."""
        names = ("expert_BK", "weight_BK", "strength_B", "per_token_B", "prior_BK", "keep_B1",
                 "fixed_BK", "present_BK")  # fmt: skip
        chosen = {n: getattr(self, n).index_select(0, index) for n in names}
        return replace(self, **chosen, uses={})

    def _use(self, tokens: int, row_N: Tensor | None) -> Use:
        """The rows' own weights for a pass of so many tokens; the same at every site."""
        known = self.uses.get(tokens)
        if known is None or known[0] is not row_N:
            use = Use(self.expert_BK, self.weight_BK, self.stack.size, tokens, row_N,
                      present_BK=self.present_BK)  # fmt: skip
            known = self.uses[tokens] = (row_N, use)
        return known[1]

    def _per_token(self, site: str, x_ND: Tensor, use: Use) -> Use:
        """Replace the weights of token-mode rows by the token router's top k."""
        assert self.router is not None
        by_site = self.stack.vectors.get(self.router.artefact, {})
        V_ED = by_site.get(site, x_ND.new_zeros(self.stack.size, x_ND.shape[1]))
        score_NK = self.router.scores(x_ND, V_ED, use) + use.per_token_rows(self.prior_BK)
        weight_NK = top_softmax(score_NK, use.per_token_rows(self.keep_B1))
        if self.some_fixed:
            fixed_NK = use.per_token_rows(self.fixed_BK)
            left_N1 = 1 - fixed_NK.sum(dim=1, keepdim=True)
            weight_NK = weight_NK * left_N1.clamp_min(0) + fixed_NK
        if not self.all_per_token:
            routed_N1 = use.per_token_rows(self.per_token_B).unsqueeze(1)
            weight_NK = torch.where(routed_N1, weight_NK, use.weight_NK)
        routed = use.routed(weight_NK)
        if self.recorder is not None:
            self.recorder(site, routed)
        return routed


@dataclass(frozen=True, eq=False)
class Mix:
    """The mix of a whole batch: one entry per merge group present."""

    groups: tuple[GroupMix, ...]
    size: int
    """B, the number of rows."""

    @property
    def idle(self) -> bool:
        """Whether no row uses any expert: the pass is then the bare backbone's."""
        return not self.groups

    def apply(self, site: str, x_ND: Tensor, y_NO: Tensor, row_N: Tensor | None = None) -> Tensor:
        """The site's output with every group's experts in force."""
        for group in self.groups:
            y_NO = group.apply(site, x_ND, y_NO, row_N)
        return y_NO

    def rows(self, index: Tensor) -> Mix:
        """Re-index: row i of the result is row `index[i]` of this mix. A row is not a request."""
        return Mix(tuple(g.rows(index) for g in self.groups), index.numel())


def top_softmax(score_NK: Tensor, keep_N1: Tensor) -> Tensor:
    """Softmax over each token's best `keep` scores, zero elsewhere (PHATGOOSE, section 3.2).

    Exactly `keep` survive: of equal scores the earlier candidate does, as `argmax` promises. Taking
    the best one `keep` times is cheaper than `topk` or a stable sort for the few that are kept.
    """
    if bool((keep_N1 >= score_NK.shape[1]).all()):
        return torch.softmax(score_NK, dim=1)
    left_NK = score_NK.detach()
    for place in range(int(keep_N1.max())):
        best_N1 = left_NK.argmax(dim=1, keepdim=True)
        taken_N1 = torch.where(keep_N1 > place, -torch.inf, left_NK.gather(1, best_N1))
        left_NK = left_NK.scatter(1, best_N1, taken_N1)
    return torch.softmax(score_NK.masked_fill(left_NK > -torch.inf, -torch.inf), dim=1)


def build_mix(
    rows: Sequence[RowMix],
    stacks: Sequence[Stack],
    router: TokenRouter | None = None,
    recorder: TokenRecorder | None = None,
) -> Mix:
    """Tensors for a batch of rows.

    Args:
        rows: one per row of the batch. stacks: one per merge group, together holding every
            expert the rows name. router: needed when a row is `per_token`.

    Raises:
        MixError: a row mixes experts of two groups, its numbers are negative or not finite, or it
            wants weights per token and the router, or what the router reads, is not there.
    """
    for row in rows:
        _require_sound(row, stacks)
        if row.per_token and row.parts:
            _require_routable(row, stacks, router)
    groups = tuple(
        _group_mix(rows, stack, router, recorder)
        for stack in stacks
        if any(p.expert in stack.index for r in rows for p in r.parts)
    )
    return Mix(groups, len(rows))


def _group_mix(
    rows: Sequence[RowMix],
    stack: Stack,
    router: TokenRouter | None,
    recorder: TokenRecorder | None,
) -> GroupMix:
    mine = [tuple(p for p in r.parts if p.expert in stack.index) for r in rows]
    K = max(len(parts) for parts in mine)
    padded = [[*parts, *[None] * (K - len(parts))] for parts in mine]
    like, device = stack.dtype, stack.device

    def table(value: str, fill: float) -> Tensor:
        cells = [[fill if p is None else getattr(p, value) for p in row] for row in padded]
        return torch.tensor(cells, dtype=like, device=device)

    expert = [[0 if p is None else stack.index[p.expert] for p in row] for row in padded]
    used = [float(r.strength) if parts else 0.0 for r, parts in zip(rows, mine, strict=True)]
    per_token = [r.per_token and bool(parts) for r, parts in zip(rows, mine, strict=True)]
    free = [sum(not p.fixed for p in parts) for parts in mine]
    keep = [[max(1, min(r.top_k, count))] for r, count in zip(rows, free, strict=True)]
    fixed_BK = table("fixed", 0.0) * torch.tensor(per_token, device=device).unsqueeze(1)
    prior_BK = table("prior", -torch.inf).masked_fill(fixed_BK > 0, -torch.inf)
    # Rows without token routing here get finite scores: a softmax over nothing but -inf is NaN,
    # and its gradient stays NaN where the value itself is thrown away.
    prior_BK[~torch.tensor(per_token, device=device)] = 0.0
    fixed_BK = fixed_BK * table("weight", 0.0)
    return GroupMix(
        stack=stack,
        expert_BK=torch.tensor(expert, device=device),
        weight_BK=table("weight", 0.0),
        strength_B=torch.tensor(used, dtype=like, device=device),
        per_token_B=torch.tensor(per_token, device=device),
        prior_BK=prior_BK,
        keep_B1=torch.tensor(keep, device=device),
        fixed_BK=fixed_BK,
        present_BK=torch.tensor([[p is not None for p in row] for row in padded], device=device),
        router=router if any(per_token) else None,
        recorder=recorder,
    )


def _require_routable(row: RowMix, stacks: Sequence[Stack], router: TokenRouter | None) -> None:
    if router is None:
        raise MixError("A row asks for weights per token and there is no token router.")
    free = [p.expert for p in row.parts if not p.fixed]
    if not free:
        raise MixError("In token mode, the token router weighs at least one expert.")
    lacking = [
        e for e in free for s in stacks
        if e in s.index and router.artefact and e not in s.owners.get(router.artefact, ())
    ]  # fmt: skip
    if lacking:
        raise MixError(
            f"Token routing by {router.artefact!r} needs those vectors of every expert that keeps "
            "no fixed weight.",
            experts=lacking,
        )


def _require_sound(row: RowMix, stacks: Sequence[Stack]) -> None:
    weights = [p.weight for p in row.parts]
    if any(not 0 <= w < math.inf for w in (*weights, row.strength)):
        raise MixError(
            "Mix weights and strength must be finite and not negative.",
            weights=weights,
            strength=row.strength,
        )
    if not all(math.isfinite(p.prior) for p in row.parts):
        raise MixError("Priors must be finite.", priors=[p.prior for p in row.parts])
    homes = [next((i for i, s in enumerate(stacks) if p.expert in s.index), None)
             for p in row.parts]  # fmt: skip
    if None in homes:
        raise MixError("A row names an expert that is not loaded.")
    if len(set(homes)) > 1:
        raise MixError(
            "Experts of different merge groups cannot act on one row.",
            experts=[p.expert for p in row.parts],
        )
