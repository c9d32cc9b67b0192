"""Steps 7 and 8: one mixed forward pass for the board, shared by samples that ask the same.

Samples with equal tokens and equal selection share one row. Knows selections, not how they were
made; gives back adapted states, not answers.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from torch import Tensor

from experts.backbones import Backbone
from experts.mix import Part, RowMix, build_mix
from experts.stacks import StackCache
from experts.weights import ExpertWeights
from routers.token import TOKEN_ROUTERS
from routers.types import Selection
from server.engine.messages import TokenTrace
from server.engine.recorder import SiteRecorder
from server.engine.work import Work


def forward(
    backbone: Backbone,
    stacks: StackCache,
    experts: Mapping[str, ExpertWeights],
    board: Sequence[Work],
) -> None:
    """Set `state_D` of every sample, and `token_traces` where a full trace was asked for."""
    by_router: dict[str | None, dict[Hashable, list[Work]]] = {}
    for work in board:
        rows = by_router.setdefault(work.selection.token_router, {})
        rows.setdefault(_row_key(work), []).append(work)
    for router, rows in by_router.items():
        firsts = [works[0] for works in rows.values()]
        state_BD = _adapted(backbone, stacks, experts, firsts, router).cpu()
        for works, state_D in zip(rows.values(), state_BD, strict=True):
            for work in works:
                work.state_D = state_D
    for work in board:
        if work.sample.options.trace == "full" and work.selection.mode == "token":
            work.token_traces = _token_traces(backbone, stacks, experts, work)


def row_mix(selection: Selection) -> RowMix:
    """A selection as the primitive takes it."""
    parts = tuple(Part(e.ref, e.weight, e.prior, e.fixed) for e in selection.experts)
    return RowMix(parts, selection.strength, selection.mode == "token", selection.top_k)


def _adapted(
    backbone: Backbone, stacks: StackCache, experts: Mapping[str, ExpertWeights],
    works: Sequence[Work], router: str | None,
) -> Tensor:  # fmt: skip
    """Adapted states (B, D) of one row per work."""
    rows = [row_mix(w.selection) for w in works]
    ids = dict.fromkeys(p.expert for r in rows for p in r.parts)
    if not ids:
        return backbone.encode([w.tokens for w in works])
    mix = build_mix(
        rows, stacks.get([experts[i] for i in ids]), TOKEN_ROUTERS[router] if router else None
    )
    return backbone.encode([w.tokens for w in works], mix)


def _token_traces(
    backbone: Backbone, stacks: StackCache, experts: Mapping[str, ExpertWeights], work: Work
) -> tuple[TokenTrace, ...]:
    """Run one sample again, listening to what its tokens chose. Costs a pass; asked for by name."""
    row = row_mix(work.selection)
    stack = stacks.get([experts[p.expert] for p in row.parts])
    router = TOKEN_ROUTERS[work.selection.token_router or "constant"]
    recorder = SiteRecorder(list(stack[0].index))
    backbone.run([work.tokens], build_mix([row], stack, router, recorder))
    return recorder.traces


def _row_key(work: Work) -> Hashable:
    s = work.selection
    experts = tuple((e.id, e.version, e.weight, e.prior, e.fixed) for e in s.experts)
    return (tuple(work.tokens), experts, s.strength, s.mode, s.token_router, s.top_k)
