"""Prompts that begin as others did, by the same experts: rows that need not read them again."""

from __future__ import annotations

from collections.abc import Hashable

from experts.decoding.prefixes import Prefixes
from routers.types import Selection
from server.engine.generation.batch import Row
from server.engine.passes import row_mix


def begin(row: Row, prefixes: Prefixes) -> int:
    """Have a new row read its prompt from where no other has; how many tokens that leaves out."""
    prompt, seat = row.request.prompt, row.seat
    tokens, key = prompt.tokens, _key(prompt.selection)
    found = prefixes.find(key, tokens)
    count = 0
    if found is not None:
        prefix, count = found
        row.deck.own.restore(seat.own, prefix.kept, count)
        row.request.ticket.reused += count
    row.unread = list(tokens[count:])
    row.remember = prefixes.worth(key, tokens, count)
    return count


def remember(row: Row, prefixes: Prefixes) -> None:
    """Keep what a row has read of its prompt, if that is worth it, and not yet done."""
    if row.remember:
        prompt, count = row.request.prompt, row.remember
        row.remember = 0
        kept = row.deck.own.kept(row.seat.own, count)
        prefixes.keep(_key(prompt.selection), prompt.tokens[:count], kept)


def _key(selection: Selection) -> Hashable:
    """Whatever decides what a token's keys and values are."""
    return row_mix(selection), selection.token_router
