"""The mix in force during one forward pass: which experts act on which row, and how much.

A `Mix` is built for one batch, handed to the backbone, and forgotten. Where rows ask for weights
per token, `experts.token_routing` gives them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from experts.errors import MixError
from experts.kernels import Lengths, Use
from experts.kinds import KINDS
from experts.stacks import Stack
from experts.token_routing import TokenRecorder, TokenRouter, TokenRules, TokenWeigher


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


@dataclass(frozen=True, eq=False)
class GroupMix:
    """The rows' use of one merge group's stack. Rows of other groups have strength 0."""

    stack: Stack
    expert_BK: Tensor
    weight_BK: Tensor
    strength_B: Tensor
    present_BK: Tensor
    rules: TokenRules
    router: TokenRouter | None
    recorder: TokenRecorder | None = None
    _uses: dict[tuple[int, Lengths | None], Use] = field(default_factory=dict)
    _weighers: dict[Use, TokenWeigher] = field(default_factory=dict)
    _waiting: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Weights of sites that are to come, and the tokens that they are for."""

    def apply(self, site: str, x_ND: Tensor, y_NO: Tensor, lengths: Lengths | None) -> Tensor:
        """The output of one site with this group's experts in force."""
        tensors = self.stack.sites.get(site)
        if tensors is None:
            return y_NO
        use = self._use(x_ND.shape[0], lengths)
        if self.router is not None:
            use = use.routed(self._weight_NK(self.router, site, x_ND, use))
            if self.recorder is not None:
                self.recorder(site, use)
        return KINDS[self.stack.kind].apply(y_NO, x_ND, tensors, use, self._strength_B)

    def rows(self, index: Tensor) -> GroupMix:
        """The same mix for rows `index` of this one."""
        names = ("expert_BK", "weight_BK", "strength_B", "present_BK")
        chosen = {n: getattr(self, n).index_select(0, index) for n in names}
        return GroupMix(self.stack, **chosen, rules=self.rules.rows(index), router=self.router,
                        recorder=self.recorder)  # fmt: skip

    @cached_property
    def _strength_B(self) -> Tensor | None:
        """None where all rows have strength 1."""
        return None if bool((self.strength_B == 1).all()) else self.strength_B

    def _use(self, tokens: int, lengths: Lengths | None) -> Use:
        """The rows' own weights for a pass of so many tokens; the same at every site."""
        if (tokens, lengths) not in self._uses:
            self._uses[tokens, lengths] = Use(
                self.expert_BK, self.weight_BK, self.stack.size, tokens, lengths,
                present_BK=self.present_BK,
            )  # fmt: skip
        return self._uses[tokens, lengths]

    def _weight_NK(self, router: TokenRouter, site: str, x_ND: Tensor, use: Use) -> Tensor:
        """Weights of each token at a site, by the token router for rows that want it.

        Sites that see the same tokens are weighed together, when the first of them is met.
        """
        known = self._waiting.pop(site, None)
        if known is not None and _same_memory(known[0], x_ND):
            return known[1]
        if use not in self._weighers:
            self._weighers[use] = TokenWeigher(self.rules, use)
        sites = self.stack.siblings.get(site, (site,))
        V_ED = self.stack.vectors_beside(router.artefact, sites, x_ND)
        weights = self._weighers[use].weights(router, x_ND, V_ED, len(sites))
        found = dict(zip(sites, weights, strict=True))
        self._waiting.update((s, (x_ND, w_NK)) for s, w_NK in found.items() if s != site)
        return found[site]


def _same_memory(x: Tensor, y: Tensor) -> bool:
    return x.data_ptr() == y.data_ptr() and x.shape == y.shape


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

    def apply(
        self, site: str, x_ND: Tensor, y_NO: Tensor, lengths: Lengths | None = None
    ) -> Tensor:
        """The site's output with every group's experts in force.

        Args:
            lengths: tokens of each row; None where rows have equally many.
        """
        for group in self.groups:
            y_NO = group.apply(site, x_ND, y_NO, lengths)
        return y_NO

    def rows(self, index: Tensor) -> Mix:
        """Re-index: row i of the result is row `index[i]` of this mix. A row is not a request."""
        return Mix(tuple(g.rows(index) for g in self.groups), index.numel())


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
        present_BK=torch.tensor([[p is not None for p in row] for row in padded], device=device),
        rules=TokenRules(
            per_token_B=torch.tensor(per_token, device=device),
            prior_BK=prior_BK,
            keep_B1=torch.tensor(keep, device=device),
            fixed_BK=fixed_BK,
        ),
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
