"""How prompts began that were read before: a prompt that begins alike is not read from its start.

What is kept of a token depends on the experts that read it, so a beginning has a key that says who
did. Only what has come up twice is kept: where no prompt repeats another, nothing is copied. The
least used goes first. Knows tokens and tensors, no rows.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Ids = NDArray[np.int32]
LEAST = 16
"""Tokens that are worth it."""
RECENT = 256
"""Prompts that are remembered by their tokens."""


@dataclass(frozen=True, eq=False)
class Prefix:
    """A beginning, and what every layer keeps of it: (heads, tokens, width) each."""

    key: Hashable
    tokens: Ids
    kept: Sequence[Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept."""
        return sum(t.numel() * t.element_size() for t in self.kept)


class Prefixes:
    """Beginnings of prompts, within a budget.

    Args:
        most_bytes: for what is kept; 0 keeps nothing. token_bytes: what is kept of a token.
    """

    def __init__(self, most_bytes: int, token_bytes: int) -> None:
        self.most_bytes, self.most_tokens = most_bytes, most_bytes // token_bytes
        self.nbytes = 0
        self._kept: OrderedDict[int, Prefix] = OrderedDict()
        self._recent: deque[tuple[Hashable, Ids]] = deque(maxlen=RECENT)

    def find(self, key: Hashable, tokens: Sequence[int]) -> tuple[Prefix, int] | None:
        """The beginning that has most in common with a prompt, and how many tokens of it.

        Never all of the prompt: what follows it is told by reading its last token.
        """
        ids = np.asarray(tokens[:-1], dtype=np.int32)
        both = [(p, common(p.tokens, ids)) for p in self._kept.values() if p.key == key]
        best, count = max(both, key=lambda pair: pair[1], default=(None, 0))
        if best is None or count < LEAST:
            return None
        self._kept.move_to_end(id(best))
        return best, count

    def covers(self, key: Hashable, tokens: Sequence[int]) -> bool:
        """Whether all of these are kept."""
        ids = np.asarray(tokens, dtype=np.int32)
        return any(common(p.tokens, ids) == len(ids) for p in self._kept.values() if p.key == key)

    def worth(self, key: Hashable, tokens: Sequence[int], found: int = 0) -> int:
        """How many tokens of a prompt are worth keeping, since a recent one began with them.

        Args:
            found: what is kept of them already.
        """
        if self.most_tokens < LEAST:
            return 0
        ids = np.asarray(tokens[: self.most_tokens], dtype=np.int32)
        alike = max((common(t, ids) for k, t in self._recent if k == key), default=0)
        self._recent.append((key, ids))
        return alike if alike >= found + LEAST else 0

    def keep(self, key: Hashable, tokens: Sequence[int], kept: Sequence[Tensor]) -> None:
        """Keep the beginning of a prompt; it takes the place of those that are part of it.

        Args:
            tokens: as many as `worth` said.
        """
        prefix = Prefix(key, np.asarray(tokens, dtype=np.int32), kept)
        for other in list(self._kept.values()):
            if other.key == key and common(other.tokens, prefix.tokens) == len(other.tokens):
                self._drop(other)
        while self.nbytes + prefix.nbytes > self.most_bytes:
            self._drop(next(iter(self._kept.values())))
        self._kept[id(prefix)] = prefix
        self.nbytes += prefix.nbytes

    def _drop(self, prefix: Prefix) -> None:
        del self._kept[id(prefix)]
        self.nbytes -= prefix.nbytes


def common(a: Ids, b: Ids) -> int:
    """How many tokens two prompts begin with in common."""
    count = min(len(a), len(b))
    differs = np.flatnonzero(a[:count] != b[:count])
    return int(differs[0]) if len(differs) else count
