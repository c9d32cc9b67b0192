"""Samples that take one selection: the first is routed, the others follow it, in later batches too.

Decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from experts.errors import ExpertError
from routers.policy import Decision
from server.engine.work import Work
from server.errors import ServerError


def parted(board: Sequence[Work]) -> tuple[list[Work], list[tuple[Work, Work]]]:
    """Those for whom somebody has to decide, and the others, each with the one it follows.

    What an earlier batch could not decide is no more decided in this one.
    """
    leads: dict[int, Work] = {}
    for work in board:
        if work.sample.leads:
            leads.setdefault(id(work.sample.shared), work)
    own, led = list[Work](), list[tuple[Work, Work]]()
    for work in board:
        lead = leads.get(id(work.sample.shared), work)
        if lead is work:
            own.append(work)
            work.error = _earlier(work)
        else:
            led.append((work, lead))
    return own, led


def follow(own: Sequence[Work], led: Sequence[tuple[Work, Work]]) -> None:
    """Give those that follow what was decided, and note it for later batches."""
    for work in own:
        shared = work.sample.shared
        if shared and work.sample.leads:
            shared.by, shared.error = work.sample, work.error
            shared.selection = None if work.error else work.selection
    for work, lead in led:
        work.error = work.error or lead.error
        if not work.error:
            work.decision, work.generation = Decision(lead.selection), lead.generation


def _earlier(work: Work) -> ExpertError | ServerError | None:
    shared = work.sample.shared
    return shared.error if shared and not work.sample.leads else None
