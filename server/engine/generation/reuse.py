"""Prompts that begin as others did, by the same experts: rows that need not read them again."""

from __future__ import annotations

from collections.abc import Hashable
from weakref import ref

from experts.decoding.prefixes import Prefixes
from server.engine.generation.batch import Row
from server.engine.generation.request import Request
from server.engine.passes import row_mix


def begin(row: Row, prefixes: Prefixes) -> int:
    """Have a new row read its prompt from where no other has; how many tokens that leaves out."""
    prompt, seat = row.request.prompt, row.seat
    tokens, key = prompt.tokens, _key(row.request)
    found = prefixes.find(key, tokens)
    count = 0
    if found is not None:
        prefix, count = found
        row.deck.own.restore(seat.own, prefix.kept, count)
        row.request.reused = count
        row.request.ticket.reused += count
    row.unread = list(tokens[count:])
    row.remember = prefixes.worth(key, tokens, count)
    return count


def remember(row: Row, prefixes: Prefixes) -> None:
    """Keep what a row has read of its prompt, if that is worth it, and not yet done."""
    count, row.remember = row.remember, 0
    if not count:
        return
    tokens, key = row.request.prompt.tokens[:count], _key(row.request)
    if not prefixes.covers(key, tokens):  # one that was read at the same time may have been first
        prefixes.keep(key, tokens, row.deck.own.kept(row.seat.own, count))


def _key(request: Request) -> Hashable:
    """Whatever decides what a token's keys and values are, and who may come to know of them.

    Experts themselves, not their names: others may come under a name that was given up.
    """
    assert request.lease is not None
    prompt, experts = request.prompt, request.lease.experts
    selection = prompt.selection
    weights = tuple(ref(experts[name]) for name in selection.refs)
    return row_mix(selection), selection.token_router, weights, prompt.scope
