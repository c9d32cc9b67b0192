"""Vectors of texts, each computed once: embeddings of words, features of inputs.

Keyed by content, so that no text is kept; one store serves one backbone for its life. The choice
side of an answer and the request router's view of the choices are the same tensors.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

DEFAULT_ENTRIES = 65_536


class FeatureStore:
    """An LRU of vectors by the digest of their text, all of one width."""

    def __init__(
        self, compute: Callable[[Sequence[str]], Tensor], entries: int = DEFAULT_ENTRIES
    ) -> None:
        self.compute = compute
        self.entries = entries
        self.lookups = self.hits = 0
        self._vectors: OrderedDict[bytes, Tensor] = OrderedDict()

    def warm(self, texts: Iterable[str]) -> None:
        """Embed what is missing in as few passes as possible."""
        wanted = dict.fromkeys(texts)
        missing = {_digest(t): t for t in wanted if _digest(t) not in self._vectors}
        self.lookups += len(wanted)
        self.hits += len(wanted) - len(missing)
        if not missing:
            return
        vectors_BD = self.compute(list(missing.values())).cpu()  # routers work there
        for key, vector_D in zip(missing, vectors_BD, strict=True):
            self._vectors[key] = vector_D.clone()
        while len(self._vectors) > max(self.entries, len(wanted)):
            self._vectors.popitem(last=False)

    def get(self, text: str) -> Tensor:
        """The vector (D,) of one text."""
        key = _digest(text)
        if key not in self._vectors:
            self.warm([text])
        self._vectors.move_to_end(key)
        return self._vectors[key]

    def stack(self, texts: Sequence[str]) -> Tensor:
        """The vectors (B, D) of several texts."""
        return torch.stack([self.get(t) for t in texts])


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
