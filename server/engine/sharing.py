"""Samples that take one selection: the first is routed, the others follow it, in later batches too.

Decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from routers.policy import Decision
from server.engine.work import Work


def parted(board: Sequence[Work]) -> tuple[list[Work], list[tuple[Work, Work]]]:
    """Those for whom somebody has to decide, and the others, each with the one it follows."""
    leads: dict[int, Work] = {}
    for work in board:
        shared = work.sample.shared
        if shared and (shared.by is None or shared.by is work.sample):
            leads.setdefault(id(shared), work)
    own, led = list[Work](), list[tuple[Work, Work]]()
    for work in board:
        lead = leads.get(id(work.sample.shared), work)
        if lead is work:
            own.append(work)
        else:
            led.append((work, lead))
    return own, led


def follow(own: Sequence[Work], led: Sequence[tuple[Work, Work]]) -> None:
    """Give those that follow what was decided, and note it for later batches."""
    for work in own:
        shared = work.sample.shared
        if shared and not work.error and work.sample.taken is None:
            shared.selection, shared.by = work.selection, work.sample
    for work, lead in led:
        work.error = work.error or lead.error
        if not work.error:
            work.decision, work.generation = Decision(lead.selection), lead.generation
