"""Memory for keys and values: pages of equal slots, one slot for each row that is being decoded.

A slot has room for a whole row, in a capacity that is a power of two, so that rows of one page lie
side by side and attention reads them as they are, without a copy. A page of small slots has many,
one of large slots few: all take the same bytes, within one budget. Knows no tokens and no model.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

LEAST_CAPACITY = 64
PAGE_TOKENS = 2048


@dataclass(frozen=True)
class LayerShape:
    """What one layer keeps of a token: its heads, and the widths of a key and of a value."""

    heads: int
    key: int
    value: int


class ByteBudget:
    """Bytes that several users share. Safe to use from many threads."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Take so many bytes, if they are left."""
        with self._lock:
            if self.used + count > self.total:
                return False
            self.used += count
            return True

    def give_back(self, count: int) -> None:
        """Let others have bytes that were taken."""
        with self._lock:
            self.used -= count


@dataclass(eq=False)
class Slot:
    """The place of one row: `index` in its page may change when another row leaves.

    Attributes:
        length: how many tokens are kept.
    """

    page: Page
    index: int
    length: int = 0

    @property
    def room(self) -> int:
        """Tokens that still fit."""
        return self.page.capacity - self.length


@dataclass(eq=False)
class Page:
    """Slots of one capacity. Those in use are the first ones.

    Attributes:
        keys, values: of each layer, (slots, heads, capacity, width).
    """

    capacity: int
    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    slots: list[Slot] = field(default_factory=list)

    @property
    def size(self) -> int:
        """How many slots there are, used or not."""
        return self.keys[0].shape[0]

    def tensors(self) -> Sequence[Tensor]:
        """All it holds."""
        return [*self.keys, *self.values]


class Pages:
    """The rows of one running batch.

    Args:
        shapes: of each layer. budget: may be shared with others. page_tokens: tokens a page has
            room for, all its slots together.
    """

    def __init__(
        self, shapes: Sequence[LayerShape], dtype: torch.dtype, device: torch.device,
        budget: ByteBudget, page_tokens: int = PAGE_TOKENS,
    ) -> None:  # fmt: skip
        self.shapes = tuple(shapes)
        self.pages: list[Page] = []
        self._like = torch.empty(0, dtype=dtype, device=device)
        self._budget = budget
        self._page_tokens = page_tokens

    @property
    def token_bytes(self) -> int:
        """Bytes that one token takes in all layers."""
        numbers = sum(s.heads * (s.key + s.value) for s in self.shapes)
        return numbers * self._like.element_size()

    def bytes_for(self, tokens: int, rows: int) -> int:
        """Bytes of the pages for so many rows that grow to so many tokens each."""
        capacity = capacity_for(tokens)
        slots = max(1, self._page_tokens // capacity)
        return -(-rows // slots) * self._page_bytes(capacity)

    def place(self, tokens: int) -> Slot | None:
        """A slot for a row that grows to so many tokens; None where memory is short for now."""
        capacity = capacity_for(tokens)
        page = next((p for p in self.pages if p.capacity == capacity and len(p.slots) < p.size),
                    None)  # fmt: skip
        if page is None:
            if not self._budget.take(self._page_bytes(capacity)):
                return None
            page = self._new(capacity)
        slot = Slot(page, len(page.slots))
        page.slots.append(slot)
        return slot

    def free(self, slot: Slot, *, wipe: bool = False) -> None:
        """Let a row go; the page's last row moves to its place, and an empty page is freed.

        Args:
            wipe: leave zeros behind. A value that is no number would spoil later rows of the slot,
                since even a weight of zero does not hide it.
        """
        page = slot.page
        if wipe:
            for tensor in page.tensors():
                tensor[slot.index].zero_()
        last = page.slots.pop()
        if last is not slot:
            for tensor in page.tensors():
                tensor[slot.index, :, : last.length] = tensor[last.index, :, : last.length]
            page.slots[slot.index] = last
            last.index = slot.index
        if not page.slots:
            self.pages.remove(page)
            self._budget.give_back(self._page_bytes(page.capacity))

    def copy(self, source: Slot, target: Slot) -> None:
        """Have `target` keep what `source` does."""
        for mine, theirs in zip(target.page.tensors(), source.page.tensors(), strict=True):
            mine[target.index, :, : source.length] = theirs[source.index, :, : source.length]
        target.length = source.length

    def kept(self, slot: Slot, count: int) -> list[Tensor]:
        """A copy of what each layer keeps of a row's first tokens."""
        return [t[slot.index, :, :count].clone() for t in slot.page.tensors()]

    def restore(self, slot: Slot, kept: Sequence[Tensor], count: int) -> None:
        """Have an empty slot begin with the first tokens of what `kept` gave."""
        for mine, theirs in zip(slot.page.tensors(), kept, strict=True):
            mine[slot.index, :, :count] = theirs[:, :count]
        slot.length = count

    def _page_bytes(self, capacity: int) -> int:
        return max(self._page_tokens, capacity) * self.token_bytes

    def _new(self, capacity: int) -> Page:
        # Zeros, not whatever lies there: what is masked must still be a number.
        count = max(1, self._page_tokens // capacity)
        keys = [self._like.new_zeros(count, s.heads, capacity, s.key) for s in self.shapes]
        values = [self._like.new_zeros(count, s.heads, capacity, s.value) for s in self.shapes]
        page = Page(capacity, keys, values)
        self.pages.append(page)
        return page


def capacity_for(tokens: int) -> int:
    """The capacity of the slot for a row that grows to so many tokens."""
    return max(LEAST_CAPACITY, 1 << (tokens - 1).bit_length())
