"""A pass in which several continuations of a text share the reading of it. Nothing is kept.

Row after row stands the text (its stem), and after it each continuation (a branch); a branch sees
the stem and itself, and no other branch. Knows tokens by number alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from experts.decoding.passes import Bias
from experts.decoding.scores import Rule, attend, causal_mask


@dataclass(frozen=True)
class Tree:
    """One row: tokens of its stem, and of each of its branches."""

    stem: int
    branches: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.stem + sum(self.branches)

    @property
    def positions(self) -> list[int]:
        """Where each token stands: a branch begins where the stem ends."""
        branches = [p for n in self.branches for p in range(self.stem, self.stem + n)]
        return [*range(self.stem), *branches]


@dataclass(frozen=True, eq=False)
class Branches:
    """Attends within trees, one after the other. See `experts.decoding.passes.Keeper`."""

    trees: Sequence[Tree]
    bias: Bias | None = None

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        """See `Keeper.attend`."""
        return torch.cat(list(self._parts(q, k, v, rule)), dim=1)

    def _parts(self, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Iterator[Tensor]:
        start = 0
        for tree in self.trees:
            stem = slice(start, start + tree.stem)
            keys, values = k[:, :, stem], v[:, :, stem]
            yield attend(q[:, :, stem], keys, values, rule, self._added(0, tree.stem, rule, q))
            start += tree.stem
            for count in tree.branches:
                if not count:
                    continue
                own = slice(start, start + count)
                yield attend(
                    q[:, :, own], torch.cat([keys, k[:, :, own]], dim=2),
                    torch.cat([values, v[:, :, own]], dim=2), rule,
                    self._added(tree.stem, count, rule, q),
                )  # fmt: skip
                start += count

    def _added(self, before: int, count: int, rule: Rule, like: Tensor) -> Tensor | None:
        mask = causal_mask(count, before + count, before, rule.window, like)
        if self.bias is None:
            return mask
        at_1T = torch.arange(before, before + count, device=like.device).unsqueeze(0)
        bias = self.bias(at_1T, before + count)
        return bias if mask is None else bias + mask


@dataclass(frozen=True, eq=False)
class Sources:
    """Every token of a row attends to the row's source, which this very pass brings.

    Args:
        counts: (source's tokens, own tokens) of each row.
    """

    counts: Sequence[tuple[int, int]]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        """See `Keeper.attend`."""
        out: list[Tensor] = []
        source = own = 0
        for read, written in self.counts:
            keys = slice(source, source + read)
            queries = q[:, :, own : own + written]
            out.append(attend(queries, k[:, :, keys], v[:, :, keys], rule))
            source, own = source + read, own + written
        return torch.cat(out, dim=1)
