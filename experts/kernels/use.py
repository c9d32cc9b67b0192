"""Which of the stacked experts each token uses, and with what weight.

A `Use` is plain data for one forward pass at one site. Tokens are flat: N tokens of
B rows, row after row. It does not know what the experts compute.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

Lengths = tuple[int, ...]
"""Tokens of each row, where rows differ in them."""


@dataclass(frozen=True, eq=False)
class Use:
    """Experts and weights of N flat tokens.

    Attributes:
        expert_BK: int64, for each row the indices of its K experts in a stack of `experts`.
            A row with fewer than K experts repeats any index at weight 0.
        weight: (B, K) when every token of a row shares its row's weights, (N, K) when
            `per_token`.
        experts: E, the number of experts in the stack.
        lengths: tokens of each row, some perhaps none; None when every row has N / B.
        per_token: whether `weight` is per token.
        present_BK: bool, which of a row's experts are not such repetitions; None is all.
    """

    expert_BK: Tensor
    weight: Tensor
    experts: int
    tokens: int
    lengths: Lengths | None = None
    per_token: bool = False
    present_BK: Tensor | None = None
    _known: dict[str, Any] = field(default_factory=dict, repr=False)
    """What was computed of the experts alone: uses that differ in their weights share it."""

    @property
    def rows(self) -> int:
        """B, the number of rows."""
        return self.expert_BK.shape[0]

    @property
    def width(self) -> int:
        """K, the number of experts a row may use."""
        return self.expert_BK.shape[1]

    @property
    def tokens_per_row(self) -> int:
        """T of a use whose rows have equally many tokens."""
        return self.tokens // self.rows

    @property
    def spans(self) -> list[tuple[int, slice]]:
        """Rows that have tokens, and which these are."""
        if "spans" not in self._known:
            lengths = self.lengths or (self.tokens_per_row,) * self.rows
            ends = accumulate(lengths)
            self._known["spans"] = [
                (row, slice(end - count, end))
                for row, (end, count) in enumerate(zip(ends, lengths, strict=True))
                if count
            ]
        return self._known["spans"]

    @property
    def row_N(self) -> Tensor:
        """The row of each token."""
        if "row_N" not in self._known:
            device = self.expert_BK.device
            counts = self.lengths or (self.tokens_per_row,) * self.rows
            self._known["row_N"] = torch.repeat_interleave(torch.tensor(counts, device=device))
        return self._known["row_N"]

    def per_token_rows(self, value_BK: Tensor) -> Tensor:
        """Repeat a per-row tensor (B, ...) for each token of the row: (N, ...)."""
        if self.tokens == self.rows and self.lengths is None:
            return value_BK
        return value_BK.index_select(0, self.row_N)

    def only(self, row: int, tokens: slice) -> Use:
        """The use of one row's tokens, as if there were no others."""
        weight = self.weight[tokens] if self.per_token else self.weight[row : row + 1]
        return Use(self.expert_BK[row : row + 1], weight, self.experts,
                   tokens.stop - tokens.start, None, self.per_token)  # fmt: skip

    def beside(self, sites: int) -> Use:
        """The same experts at several sites, whose stacks follow one another: (B, sites * K).

        For scores alone: it has no weights.
        """
        if sites == 1:
            return self
        shift_S1 = torch.arange(sites, device=self.expert_BK.device).unsqueeze(1) * self.experts
        expert_BSK = self.expert_BK.unsqueeze(1) + shift_S1
        none = self.weight.new_zeros(self.rows, sites * self.width)
        return Use(expert_BSK.flatten(1), none, sites * self.experts, self.tokens, self.lengths)

    def scaled(self, factor_B: Tensor) -> Use:
        """The same use with each row's weights multiplied by a factor of the row.

        Remembered for the last factor: a use with weights per row serves all sites of a pass.
        """
        known = self.__dict__.get("_scaled")
        if known is None or known[0] is not factor_B:
            factor = self.per_token_rows(factor_B) if self.per_token else factor_B
            scaled = self._with_weight(self.weight * factor.unsqueeze(1), self.per_token)
            known = self.__dict__["_scaled"] = (factor_B, scaled)
        return known[1]

    def routed(self, weight_NK: Tensor) -> Use:
        """The same experts with weights per token."""
        return self._with_weight(weight_NK, per_token=True)

    def _with_weight(self, weight: Tensor, per_token: bool) -> Use:
        """A copy with other weights that shares what was computed of the experts."""
        return replace(self, weight=weight, per_token=per_token)

    @property
    def expert_NK(self) -> Tensor:
        """Expert indices per token."""
        if "expert_NK" not in self._known:
            self._known["expert_NK"] = self.per_token_rows(self.expert_BK)
        return self._known["expert_NK"]

    @cached_property
    def weight_NK(self) -> Tensor:
        """Weights per token."""
        return self.weight if self.per_token else self.per_token_rows(self.weight)

    @cached_property
    def dense_weight(self) -> Tensor:
        """Weights over all E experts: (B, E), or (N, E) when `per_token`."""
        index = self.expert_NK if self.per_token else self.expert_BK
        zeros = self.weight.new_zeros(index.shape[0], self.experts)
        return zeros.scatter_add(1, index, self.weight)

    @cached_property
    def dense_weight_NE(self) -> Tensor:
        """Weights over all E experts, per token."""
        return self.dense_weight if self.per_token else self.per_token_rows(self.dense_weight)

    @property
    def pairs(self) -> Pairs:
        """The tokens of each expert, by the experts of the rows: weights per token change none."""
        if "pairs" not in self._known:
            present_NK = None if self.present_BK is None else self.per_token_rows(self.present_BK)
            self._known["pairs"] = _pair(self.expert_NK, present_NK, self.experts)
        return self._known["pairs"]

    @cached_property
    def pair_weight(self) -> Tensor:
        """Weights (P,) of `pairs`."""
        return self.weight_NK.flatten().index_select(0, self.pairs.pair_P)

    @property
    def groups(self) -> Groups:
        """`pairs`, as many places for each expert."""
        if "groups" not in self._known:
            self._known["groups"] = _group(self.pairs)
        return self._known["groups"]

    @cached_property
    def group_weight(self) -> Tensor:
        """Weights (S,) of `groups`' tokens; padding has none."""
        groups = self.groups
        return self.weight_NK.flatten().index_select(0, groups.pair_S) * groups.real_S


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs of token and expert, expert after expert.

    Attributes:
        token_P: the token of each. pair_P: its place among the (N, K) pairs, flat.
        first_E1: where each expert's begin, and where the last one's end, (E + 1,).
    """

    token_P: Tensor
    pair_P: Tensor
    first_E1: Tensor


@dataclass(frozen=True, eq=False)
class Groups:
    """Pairs of token and expert, gathered by expert: S places, as many for each.

    Attributes:
        experts: how many have tokens. size: places of each. expert_E: which these are, None where
            it is all in order.
        token_S: the token of each place. pair_S: its place among the (N, K) pairs, flat.
        real_S: 1, or 0 where a group is padded.
    """

    experts: int
    size: int
    expert_E: Tensor | None
    token_S: Tensor
    pair_S: Tensor
    real_S: Tensor

    def of(self, stack: Tensor) -> Tensor:
        """The experts that have tokens, of a stack of all."""
        return stack if self.expert_E is None else stack.index_select(0, self.expert_E)


def _pair(expert_NK: Tensor, present_NK: Tensor | None, experts: int) -> Pairs:
    flat = expert_NK.flatten()
    pair_P = torch.arange(len(flat), device=flat.device)
    if present_NK is not None:
        pair_P = pair_P[present_NK.flatten()]
    pair_P = pair_P[flat[pair_P].argsort(stable=True)]
    first_E1 = flat.new_zeros(experts + 1)
    first_E1[1:] = torch.bincount(flat[pair_P], minlength=experts).cumsum(0)
    return Pairs(pair_P // expert_NK.shape[1], pair_P, first_E1)


def _group(pairs: Pairs) -> Groups:
    first_E, count_E = pairs.first_E1[:-1], pairs.first_E1.diff()
    used_E = count_E.nonzero().flatten()
    size = max(1, int(count_E.max()))
    place_UG = torch.arange(size, device=used_E.device).expand(len(used_E), size)
    real_UG = place_UG < count_E[used_E].unsqueeze(1)
    within_S = (torch.where(real_UG, place_UG, 0) + first_E[used_E].unsqueeze(1)).flatten()
    return Groups(
        len(used_E), size, None if len(used_E) == len(count_E) else used_E,
        pairs.token_P[within_S], pairs.pair_P[within_S], real_UG.flatten(),
    )  # fmt: skip
