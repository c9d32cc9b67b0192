"""Which of the stacked experts each token uses, and with what weight.

A `Use` is plain data for one forward pass at one site. Tokens are flat: N tokens of
B rows, row by row. It does not know what the experts compute.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

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
    """

    expert_BK: Tensor
    weight: Tensor
    experts: int
    tokens: int
    row_N: Tensor | None = None
    per_token: bool = False

    @property
    def rows(self) -> int:
        """B, the number of rows."""
        return self.expert_BK.shape[0]

    @property
    def width(self) -> int:
        """K, the number of experts a row may use."""
        return self.expert_BK.shape[1]

    @cached_property
    def rectangular(self) -> Use:
        """The same use with equal rows: itself, or one row per token."""
        if self.row_N is None:
            return self
        return Use(self.expert_NK, self.weight_NK, self.experts, self.tokens, None, True)

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
        changed = replace(self, weight=weight, per_token=per_token)
        if "expert_NK" in self.__dict__:
            changed.__dict__["expert_NK"] = self.expert_NK
        return changed

    @cached_property
    def expert_NK(self) -> Tensor:
        """Expert indices per token."""
        return self.per_token_rows(self.expert_BK)

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

    @cached_property
    def pairs_by_expert(self) -> list[tuple[int, Tensor, Tensor]]:
        """For each expert in use: (its index, its tokens P, their weights P)."""
        weight_NE = self.dense_weight_NE
        used = torch.nonzero(weight_NE.ne(0).any(dim=0)).flatten().tolist()
        groups: list[tuple[int, Tensor, Tensor]] = []
        for expert in used:
            token_P = torch.nonzero(weight_NE[:, expert]).flatten()
            groups.append((expert, token_P, weight_NE[token_P, expert]))
        return groups
