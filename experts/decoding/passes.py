"""One pass of flat tokens (1, N): where each token's keys and values go, and which it attends to.

A model of transformers calls the attention function that is registered here; in a pass of flat
tokens it asks the `FlatPass` it was given, and in any other it does what transformers does. Knows
the pages of running rows, not the tokens in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from experts.decoding import latest
from experts.decoding.pages import Page, Slot
from experts.decoding.scores import Rule, attend, causal_mask, hidden

NAME = "sailplane"
"""The attention implementation's name in transformers."""

Bias = Callable[[Tensor, int], Tensor]
"""Relative position bias (B, H, T, S) of queries at positions (B, T) over the first S keys."""


class Attends(Protocol):
    """What a pass of flat tokens is given: it attends for every attention module."""

    def attend(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        """Outputs (1, N, H, D) of a module's queries (1, H, N, D)."""
        ...


class Keeper(Protocol):
    """Keeps a layer's keys and values, and attends."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        """Outputs (1, N, H, D) of queries (1, H, N, D), after keeping what is new."""
        ...


@dataclass(frozen=True, eq=False)
class FlatPass:
    """What the attention function needs to know of one pass.

    Attributes:
        layers: by identity of the attention module: whether it reads the source, and which layer.
        own: the keeper of the tokens themselves. source: that of what they were made from.
    """

    layers: Mapping[int, tuple[bool, int]]
    own: Keeper
    source: Keeper | None = None

    def attend(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        """See `Attends.attend`."""
        crosses, layer = self.layers[id(module)]
        keeper = self.source if crosses else self.own
        assert keeper is not None
        return keeper.attend(layer, q, k, v, rule)


@dataclass(frozen=True, eq=False)
class Steps:
    """One more token for every running row: row i is token i. Pages follow one another.

    Args:
        pages: of all rows, in order. bias: see `Bias`.
    """

    pages: Sequence[Page]
    bias: Bias | None = None
    _known: dict[object, Tensor | None] = field(default_factory=dict, init=False)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        """See `Keeper.attend`."""
        out: list[Tensor] = []
        start = 0
        for p, at_B in enumerate(self._lengths):
            rows = slice(start, start + len(at_B))
            q_BHD, k_BGD, v_BGD = (x[0, :, rows].transpose(0, 1) for x in (q, k, v))
            out.append(self._attend(p, layer, q_BHD, k_BGD, v_BGD, rule))
            start = rows.stop
        return (out[0] if len(out) == 1 else torch.cat(out)).transpose(0, 1)

    def _attend(
        self, p: int, layer: int, q_BHD: Tensor, k_BGD: Tensor, v_BGD: Tensor, rule: Rule
    ) -> Tensor:
        """Outputs (B, 1, H, D) of a page's newest tokens, (B, H, D) each."""
        page, at_B, longest = self.pages[p], self._lengths[p], self._longest[p]
        if latest.serves(rule, q_BHD):
            return latest.attend_latest(
                q_BHD, k_BGD, v_BGD, page, layer, at_B, rule, longest, self._bias(p)
            )
        keys, values, count = page.keys[layer], page.values[layer], len(at_B)
        index_B = torch.arange(count, device=at_B.device)
        keys[index_B, :, at_B], values[index_B, :, at_B] = k_BGD, v_BGD
        kept = keys[:count, :, :longest], values[:count, :, :longest]
        return attend(q_BHD.unsqueeze(2), *kept, rule, self._added(p, rule.window, q_BHD))

    @cached_property
    def _lengths(self) -> list[Tensor]:
        """Tokens kept so far of each page's rows, as the pass begins."""
        return [
            torch.tensor([s.length for s in page.slots], device=page.keys[0].device)
            for page in self.pages
        ]

    @cached_property
    def _longest(self) -> list[int]:
        """Tokens of each page's longest row, the newest among them."""
        return [int(at_B.max()) + 1 for at_B in self._lengths]

    def _added(self, p: int, window: int | None, like: Tensor) -> Tensor | None:
        """Mask and bias of a page's rows; the same in all layers with this window."""
        if ("added", p, window) not in self._known:
            at_B = self._lengths[p]
            at_S = torch.arange(self._longest[p], device=at_B.device)
            mask = hidden((at_B + 1).view(-1, 1, 1, 1), at_S, window, like)
            both = [x for x in (mask, self._bias(p)) if x is not None]
            self._known["added", p, window] = sum(both[1:], start=both[0]) if both else None
        return self._known["added", p, window]

    def _bias(self, p: int) -> Tensor | None:
        """The bias of a page's rows; the same in all layers."""
        if self.bias is None:
            return None
        if ("bias", p) not in self._known:
            self._known["bias", p] = self.bias(self._lengths[p].unsqueeze(1), self._longest[p])
        return self._known["bias", p]


@dataclass(frozen=True, eq=False)
class Chunks:
    """Several tokens for each of some rows, row after row: `counts[i]` of them for `slots[i]`."""

    slots: Sequence[Slot]
    counts: Sequence[int]
    bias: Bias | None = None

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        """See `Keeper.attend`."""
        out: list[Tensor] = []
        start = 0
        for slot, count in zip(self.slots, self.counts, strict=True):
            keep(slot, layer, k, v, start, count)
            tokens, until = slice(start, start + count), slot.length + count
            q_1HTD = q[:, :, tokens]
            if slot.length == 0 and rule.window is None and self.bias is None:
                out.append(attend(q_1HTD, k[:, :, tokens], v[:, :, tokens], rule, causal=True))
            else:
                keys, values = kept(slot, layer, until)
                out.append(attend(q_1HTD, keys, values, rule, self._added(slot, count, rule, q)))
            start += count
        return torch.cat(out, dim=1)

    def _added(self, slot: Slot, count: int, rule: Rule, like: Tensor) -> Tensor | None:
        until = slot.length + count
        mask = causal_mask(count, until, slot.length, rule.window, like)
        if self.bias is None:
            return mask
        at_1T = torch.arange(slot.length, until, device=like.device).unsqueeze(0)
        bias = self.bias(at_1T, until)
        return bias if mask is None else bias + mask


@dataclass(frozen=True, eq=False)
class Source:
    """What rows were made from: kept when it is first read, and attended to by every token.

    Args:
        slots: of the pass's rows, in order; their lengths are those of the sources.
        fresh: whether this pass brings the keys and values, row after row.
    """

    slots: Sequence[Slot]
    fresh: bool = False
    _known: dict[Page, tuple[Tensor, Tensor, int, Tensor | None]] = field(
        default_factory=dict, init=False
    )

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        """See `Keeper.attend`."""
        if self.fresh:
            start = 0
            for slot in self.slots:
                keep(slot, layer, k, v, start, slot.length, at=0)
                start += slot.length
        assert q.shape[2] == len(self.slots), "a pass brings one token of each row"
        width = self.slots[0].page.values[layer].shape[3]
        out_N1HD = q.new_empty(q.shape[2], 1, q.shape[1], width)
        for page in dict.fromkeys(slot.page for slot in self.slots):
            row_B, slot_B, longest, added = self._of_page(page, q)
            keys, values = page.keys[layer][:, :, :longest], page.values[layer][:, :, :longest]
            if len(slot_B) == len(page.slots):  # in their order: no copy
                keys, values = keys[: len(slot_B)], values[: len(slot_B)]
            else:
                keys, values = keys[slot_B], values[slot_B]
            q_BH1D = q[0].index_select(1, row_B).transpose(0, 1).unsqueeze(2)
            out_N1HD[row_B] = attend(q_BH1D, keys, values, rule, added)
        return out_N1HD.transpose(0, 1)

    def _of_page(self, page: Page, like: Tensor) -> tuple[Tensor, Tensor, int, Tensor | None]:
        """The rows whose sources a page has, in order of their slots, and what hides padding."""
        if page not in self._known:
            mine = sorted((s.index, row) for row, s in enumerate(self.slots) if s.page is page)
            # A source that is not read yet counts as one token: a softmax needs something.
            lengths = [max(1, page.slots[index].length) for index, _ in mine]
            slot_B, row_B, length_B = (
                torch.tensor(n, device=like.device)
                for n in ([i for i, _ in mine], [row for _, row in mine], lengths)
            )
            at_S = torch.arange(max(lengths), device=like.device)
            mask = hidden(length_B.view(-1, 1, 1, 1), at_S, None, like)
            self._known[page] = (row_B, slot_B, max(lengths), mask)
        return self._known[page]


def keep(
    slot: Slot, layer: int, k: Tensor, v: Tensor, start: int, count: int, at: int | None = None
) -> None:
    """Keep `count` flat tokens' keys and values, from `start` on, at the row's end (or at `at`)."""
    first = slot.length if at is None else at
    tokens, places = slice(start, start + count), slice(first, first + count)
    slot.page.keys[layer][slot.index, :, places] = k[0, :, tokens]
    slot.page.values[layer][slot.index, :, places] = v[0, :, tokens]


def kept(slot: Slot, layer: int, until: int) -> tuple[Tensor, Tensor]:
    """A row's first keys and values: (1, H, S, D) each."""
    row = slice(slot.index, slot.index + 1)
    return slot.page.keys[layer][row, :, :until], slot.page.values[layer][row, :, :until]


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    *, flat: Attends | None = None, scaling: float | None = None, softcap: float | None = None,
    s_aux: Tensor | None = None, sliding_window: int | None = None, **others: object,
) -> tuple[Tensor, None]:  # fmt: skip
    """The attention function, as transformers calls it: queries (B, H, T, D) to (B, T, H, D)."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if flat is not None:
        rule = Rule(scale, sliding_window, softcap, s_aux)
        return flat.attend(module, query, key, value, rule), None
    if softcap is None and s_aux is None:
        return sdpa_attention_forward(  # pyright: ignore[reportReturnType]
            module, query, key, value, attention_mask, scaling=scale, **others  # pyright: ignore[reportArgumentType]
        )  # fmt: skip
    added = attention_mask
    if added is not None and added.dtype == torch.bool:
        least = torch.finfo(query.dtype).min  # not -inf: a row of padding may see nothing at all
        added = query.new_zeros(added.shape).masked_fill_(~added, least)
    causal = added is None and bool(getattr(module, "is_causal", True))
    return attend(query, key, value, Rule(scale, None, softcap, s_aux), added, causal=causal), None


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
