"""Which of the stacked experts each token uses, and with what weight.

A `Use` is plain data for one forward pass at one site. Tokens are flat: N tokens of
B rows, row by row. It does not know what the experts compute.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Use:
    """Experts and weights of N flat tokens.

    Attributes:
        expert_BK: int64, for each row the indices of its K experts in a stack of `experts`.
            A row with fewer than K experts repeats any index at weight 0.
        weight: (B, K) when every token of a row shares its row's weights, (N, K) when
            `per_token`.
        experts: E, the number of experts in the stack.
        row_N: int64, the row of each token; None when every row has N / B tokens in order.
        per_token: whether `weight` is per token.
        present_BK: bool, which of a row's experts are not such repetitions; None is all.
    """

    expert_BK: Tensor
    weight: Tensor
    experts: int
    tokens: int
    row_N: Tensor | None = None
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

    @cached_property
    def even(self) -> Use:
        """The same use with rows of equal length: itself, or with padding at their ends."""
        if self.row_N is None:
            return self
        longest = max(1, self.longest)
        weight = self.weight
        if self.per_token:
            weight = weight.new_zeros(self.rows * longest, self.width)
            weight = weight.index_copy(0, self.place_N, self.weight)
        return Use(self.expert_BK, weight, self.experts, self.rows * longest, None,
                   self.per_token, self.present_BK)  # fmt: skip

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        if self.row_N is None:
            return self.tokens_per_row
        if "longest" not in self._known:
            count_B = torch.bincount(self.row_N, minlength=self.rows)
            self._known["longest"] = int(count_B.max()) if len(count_B) else 0
        return self._known["longest"]

    @property
    def place_N(self) -> Tensor:
        """Where each token stands among those of `even`; only with `row_N`."""
        assert self.row_N is not None
        if "place_N" not in self._known:
            order_N = self.row_N.argsort(stable=True)
            count_B = torch.bincount(self.row_N, minlength=self.rows)
            first_B = count_B.cumsum(0) - count_B
            sorted_N = self.row_N[order_N]
            within_N = torch.arange(self.tokens, device=order_N.device) - first_B[sorted_N]
            place_N = torch.empty_like(order_N)
            place_N[order_N] = sorted_N * max(1, self.longest) + within_N
            self._known["place_N"] = place_N
        return self._known["place_N"]

    def spread(self, x_ND: Tensor) -> Tensor:
        """Tokens as those of `even`, zeros where it has padding."""
        if self.row_N is None:
            return x_ND
        wide = x_ND.new_zeros(self.rows * max(1, self.longest), x_ND.shape[1])
        return wide.index_copy(0, self.place_N, x_ND)

    def gather(self, x_ND: Tensor) -> Tensor:
        """Back from the tokens of `even` to ours."""
        return x_ND if self.row_N is None else x_ND.index_select(0, self.place_N)

    @property
    def tokens_per_row(self) -> int:
        """T of a rectangular use."""
        return self.tokens // self.rows

    def per_token_rows(self, value_BK: Tensor) -> Tensor:
        """Repeat a per-row tensor (B, ...) for each token of the row: (N, ...)."""
        if self.row_N is not None:
            return value_BK.index_select(0, self.row_N)
        spread = value_BK.unsqueeze(1).expand(-1, self.tokens_per_row, *value_BK.shape[1:])
        return spread.reshape(self.tokens, *value_BK.shape[1:])

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
    def groups(self) -> Groups:
        """The tokens of each expert, by the experts of the rows: weights per token change none."""
        if "groups" not in self._known:
            self._known["groups"] = _group(self.expert_NK, self._present_NK, self.experts)
        return self._known["groups"]

    @cached_property
    def group_weight(self) -> Tensor:
        """Weights (S,) of `groups`' tokens; padding has none."""
        groups = self.groups
        return self.weight_NK.flatten().index_select(0, groups.pair_S) * groups.real_S

    @property
    def _present_NK(self) -> Tensor | None:
        return None if self.present_BK is None else self.per_token_rows(self.present_BK)


@dataclass(frozen=True, eq=False)
class Groups:
    """Pairs of token and expert, gathered by expert: S places, as many for each.

    Attributes:
        experts: how many have tokens. expert_E: which these are, None where it is all in order.
        token_S: the token of each place. pair_S: its place among the (N, K) pairs, flat.
        real_S: 1, or 0 where a group is padded.
    """

    experts: int
    expert_E: Tensor | None
    token_S: Tensor
    pair_S: Tensor
    real_S: Tensor

    def of(self, stack: Tensor) -> Tensor:
        """The experts that have tokens, of a stack of all."""
        return stack if self.expert_E is None else stack.index_select(0, self.expert_E)


def _group(expert_NK: Tensor, present_NK: Tensor | None, experts: int) -> Groups:
    K = expert_NK.shape[1]
    flat = expert_NK.flatten()
    pair_P = torch.arange(len(flat), device=flat.device)
    if present_NK is not None:
        pair_P = pair_P[present_NK.flatten()]
    count_E = torch.bincount(flat[pair_P], minlength=experts)
    used_E = count_E.nonzero().flatten()
    order_P = pair_P[flat[pair_P].argsort(stable=True)]
    size = max(1, int(count_E.max())) if len(flat) else 1
    count_U = count_E[used_E]
    first_U = count_U.cumsum(0) - count_U
    place_UG = torch.arange(size, device=flat.device).expand(len(used_E), size)
    real_UG = place_UG < count_U.unsqueeze(1)
    within_UG = torch.where(real_UG, place_UG, 0) + first_U.unsqueeze(1)
    pair_S = order_P[within_UG.flatten()]
    return Groups(
        len(used_E), None if len(used_E) == experts else used_E,
        pair_S // K, pair_S, real_UG.flatten(),
    )  # fmt: skip
