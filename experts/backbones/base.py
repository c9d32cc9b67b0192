"""What every frozen backbone offers: it reads texts, with whatever mix of experts is in force.

Texts go in, one pooled vector each comes out; or un-adapted features of them, for routing. How
tokens become states is the family's. Knows nothing of questions, requests, or who chose a mix.
"""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.utils import logging

from experts.backbones.halfway import HalfWay
from experts.backbones.lanes import Lane, Lanes, at_least
from experts.backbones.spelling import Spelling
from experts.errors import InputTooLong
from experts.kernels import fused
from experts.kinds import Site
from experts.mix import Mix

TAPS = 2
"""Depths at which inputs are looked at for routing."""
MAX_PADDED_TOKENS = 4096  # a pass larger than this gains nothing and costs cache


class Backbone(ABC):
    """A frozen model with sites that reads texts.

    Attributes:
        id: the name clients use for the bare backbone. fingerprint: sha256 of its weights.
        sites: every linear layer, by module name. max_tokens: the longest input it takes.
        width: of its pooled states. feature_width: of its features. feature_tokens: how much of an
            input they tell of.
    """

    def __init__(
        self, id: str, model: nn.Module, tokenizer: object, *, sites: Mapping[str, Site],
        max_tokens: int, fingerprint: str, reader: str = "",
    ) -> None:  # fmt: skip
        """Freeze a model.

        Args:
            reader: name of the submodule that turns tokens into states; "" is the model itself.
        """
        self.id = id
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.fingerprint = fingerprint
        self.sites = sites
        self.lanes = Lanes(Lane(model, sites, reader))
        self.hooks = self.lanes.first.hooks
        self.width: int = model.config.hidden_size  # type: ignore[union-attr]
        self.feature_width = TAPS * self.width
        self.feature_tokens = max_tokens
        self._pad: int = tokenizer.pad_token_id or 0  # type: ignore[attr-defined]

    @abstractmethod
    def _pool(self, states_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Token states as one vector a row: (B, D)."""

    @cached_property
    def spelling(self) -> Spelling:
        """The bytes of tokens, and how they read."""
        return Spelling(self.tokenizer)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Compute dtype."""
        return next(self.model.parameters()).dtype

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, however many there are."""
        return self.tokenizer(list(texts), truncation=False, verbose=False)[  # type: ignore[operator]
            "input_ids"
        ]

    def count(self, text: str) -> int:
        """Tokens of one text, special ones included."""
        return len(self.tokens([text])[0])

    def cut(self, row: list[int]) -> list[int]:
        """A row shortened to `max_tokens`, its closing special token kept."""
        return row if len(row) <= self.max_tokens else [*row[: self.max_tokens - 1], row[-1]]

    def tokenize(self, texts: Sequence[str], *, truncate: bool = False) -> list[list[int]]:
        """Token ids of each text, none longer than the backbone takes.

        Raises:
            InputTooLong: a text exceeds `max_tokens` and `truncate` is False.
        """
        rows = self.tokens(texts)
        longest = max((len(row) for row in rows), default=0)
        if longest > self.max_tokens and not truncate:
            raise InputTooLong(longest, self.max_tokens)
        return [self.cut(row) for row in rows]

    def widen(self, count: int) -> None:
        """Let passes run side by side, up to `count` of them, a core each."""
        self.lanes.widen(count, self.sites)
        if self.device.type == "cpu":
            fused.prepare(self.dtype)  # for passes of one thread, as they are now

    def aside(self, before: Callable[[], None] = lambda: None) -> Self:
        """The same backbone with a lane of its own, for long work that must hold up no request.

        Its passes run in the calling thread, after a call of `before`.
        """
        apart = copy.copy(self)
        apart.lanes = Lanes(self.lanes.first.copy(self.sites), before)
        apart.hooks = apart.lanes.first.hooks
        return apart

    def run(
        self, rows: Sequence[Sequence[int]], mix: Mix | None = None, lane: Lane | None = None
    ) -> Tensor:
        """One forward pass: (B, D) pooled states of B token rows, padded to the longest."""
        lane = lane or self.lanes.first
        ids_BT, mask_BT = self._pad_rows(rows)
        with lane.hooks.mixing(mix):
            out = lane.reader(input_ids=ids_BT, attention_mask=mask_BT)
        return self._pool(out.last_hidden_state, mask_BT)

    def encode(self, rows: Sequence[Sequence[int]], mix: Mix | None = None) -> Tensor:
        """Pooled states (B, D) in as many passes as keep padding small."""

        def adapted(lane: Lane, chunk: Sequence[int]) -> Tensor:
            part = mix and mix.rows(torch.tensor(chunk, device=self.device))
            return self.run([rows[i] for i in chunk], part, lane)

        return self._in_passes([len(r) for r in rows], adapted, self.width)

    def embed(self, texts: Sequence[str], *, truncate: bool = True) -> Tensor:
        """Un-adapted pooled states (B, D) of texts, without gradients."""
        with torch.no_grad():
            return self.encode(self.tokenize(texts, truncate=truncate))

    def features(self, texts: Sequence[str]) -> Tensor:
        """Un-adapted features (B, F) of inputs for routing: two unit vectors (D,) end to end.

        The mean states before the first layer (which words there are) and half-way up (`halfway`).
        The middle of an encoder tells sorts of text apart better than its end, which keeps only
        what they mean (DAM takes hidden_states[-4] too), and costs half a pass.
        """
        rows = [row[: self.feature_tokens] for row in self.tokenize(texts, truncate=True)]

        def lower(lane: Lane, chunk: Sequence[int]) -> Tensor:
            ids_BT, mask_BT = self._pad_rows([rows[i] for i in chunk])
            with torch.no_grad(), lane.hooks.mixing(None), HalfWay(*lane.lower_half) as half:
                lane.reader(input_ids=ids_BT, attention_mask=mask_BT)
            means = [F.normalize(masked_mean(s, mask_BT), dim=-1) for s in half.states]
            return torch.cat(means, dim=-1)

        return self._in_passes([len(r) for r in rows], lower, self.feature_width)

    def halfway(self, feature_BF: Tensor) -> Tensor:
        """The part of features that is of the middle: (B, D) unit vectors."""
        return feature_BF[..., -self.width :]

    def _in_passes(
        self, lengths: Sequence[int], work: Callable[[Lane, Sequence[int]], Tensor], width: int
    ) -> Tensor:
        """Rows (B, width) from passes over some of them each, little padding, side by side."""
        chunks = at_least(length_buckets(lengths), self.lanes.count)
        out_BD = torch.empty(len(lengths), width, dtype=self.dtype, device=self.device)
        for chunk, rows_BD in zip(chunks, self.lanes.map(work, chunks), strict=True):
            out_BD[torch.tensor(chunk, device=self.device)] = rows_BD
        return out_BD

    def _pad_rows(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Token ids and mask (B, T), padded to the longest row."""
        length = max(len(row) for row in rows)
        ids_BT = torch.tensor([[*row, *[self._pad] * (length - len(row))] for row in rows])
        lengths_B1 = torch.tensor([[len(row)] for row in rows])
        mask_BT = (torch.arange(length) < lengths_B1).long()
        return ids_BT.to(self.device), mask_BT.to(self.device)


@contextmanager
def no_bars() -> Generator[None]:
    """Keep transformers from drawing bars: whoever loads a backbone says so in their own way."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def masked_mean(states_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean state of each row's own tokens: (B, D)."""
    mask_BT1 = mask_BT.unsqueeze(-1).to(states_BTD.dtype)
    return (states_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)


def length_buckets(lengths: Sequence[int], max_tokens: int = MAX_PADDED_TOKENS) -> list[list[int]]:
    """Split rows into passes so that little is padding.

    Sorted by length, a pass ends where the next row would make a quarter of it padding, or more
    than `max_tokens` in all. Returns row indices per pass, longest rows first.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    buckets: list[list[int]] = []
    for i in order:
        bucket = buckets[-1] if buckets else []
        longest = lengths[bucket[0]] if bucket else 0
        fits = (len(bucket) + 1) * longest <= max_tokens and lengths[i] >= 0.75 * longest - 4
        if bucket and fits:
            bucket.append(i)
        else:
            buckets.append([i])
    return buckets


def fingerprint(model: nn.Module) -> str:
    """sha256 over the names, types, shapes and bytes of all weights, in order of name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
