"""Steps 7 and 8: one mixed forward pass for the board, shared by samples that ask the same.

Samples with equal tokens and equal selection share one row. Knows selections, not how they were
made; gives back adapted states, not answers.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from torch import Tensor

from experts.backbones import Backbone
from experts.mix import Mix, Part, RowMix, build_mix
from experts.stacks import StackCache
from experts.weights import ExpertWeights
from routers.token import TOKEN_ROUTERS
from routers.types import Selection
from server.engine.messages import TokenTrace
from server.engine.recorder import SiteRecorder
from server.engine.work import Work
from server.errors import RequestError

MOST_WEIGHTS = 2**21
"""Numbers in a trace of all tokens: 512 tokens at 64 sites with 64 experts."""


def forward(
    backbone: Backbone,
    stacks: StackCache,
    experts: Mapping[str, ExpertWeights],
    board: Sequence[Work],
) -> None:
    """Set `state_D` of every sample, and `token_traces` where a full trace was asked for."""
    for router, works in by_router(board).items():
        rows: dict[Hashable, list[Work]] = {}
        for work in works:
            rows.setdefault(_row_key(work), []).append(work)
        firsts = [works[0] for works in rows.values()]
        state_BD = _adapted(backbone, stacks, experts, firsts, router).cpu()
        for works, state_D in zip(rows.values(), state_BD, strict=True):
            for work in works:
                work.state_D = state_D
    for work in board:
        if wants_tokens(work):
            try:
                work.token_traces = _token_traces(backbone, stacks, experts, work)
            except RequestError as error:
                work.error = error


def row_mix(selection: Selection) -> RowMix:
    """A selection as the primitive takes it."""
    parts = tuple(Part(e.ref, e.weight, e.prior, e.fixed) for e in selection.experts)
    return RowMix(parts, selection.strength, selection.mode == "token", selection.top_k)


def wants_tokens(work: Work) -> bool:
    """Whether a sample asked what each token chose, and tokens had a choice."""
    return work.sample.options.listens and work.selection.mode == "token"


def require_few_weights(tokens: int, sites: int, experts: int) -> None:
    """Refuse a trace of all tokens that would take the memory of all others.

    Raises:
        RequestError: it has more numbers than are told.
    """
    if (count := tokens * sites * experts) > MOST_WEIGHTS:
        raise RequestError(
            f"The trace of all tokens has {count} weights ({tokens} tokens at {sites} sites, "
            f"{experts} experts), and {MOST_WEIGHTS} are told at most: ask for trace 'full', or "
            "for fewer experts (routing.top_k).",
            param="routing.trace",
        )


def by_router(board: Sequence[Work]) -> dict[str | None, list[Work]]:
    """Samples by the token router that weighs their experts; None of those without one."""
    found: dict[str | None, list[Work]] = {}
    for work in board:
        found.setdefault(work.selection.token_router, []).append(work)
    return found


def board_mix(
    selections: Sequence[Selection], experts: Mapping[str, ExpertWeights], stacks: StackCache,
    router: str | None,
) -> Mix | None:  # fmt: skip
    """The mix of rows with these selections; None where no row uses an expert."""
    rows = [row_mix(selection) for selection in selections]
    ids = dict.fromkeys(p.expert for r in rows for p in r.parts)
    if not ids:
        return None
    return build_mix(
        rows, stacks.get([experts[i] for i in ids]), TOKEN_ROUTERS[router] if router else None
    )


def _adapted(
    backbone: Backbone, stacks: StackCache, experts: Mapping[str, ExpertWeights],
    works: Sequence[Work], router: str | None,
) -> Tensor:  # fmt: skip
    """Adapted states (B, D) of one row per work."""
    mix = board_mix([w.selection for w in works], experts, stacks, router)
    return backbone.encode([w.tokens for w in works], mix)


def _token_traces(
    backbone: Backbone, stacks: StackCache, experts: Mapping[str, ExpertWeights], work: Work
) -> tuple[TokenTrace, ...]:
    """Run one sample again, listening to what its tokens chose. Costs a pass; asked for by name."""
    row = row_mix(work.selection)
    if work.sample.options.trace == "tokens":
        require_few_weights(len(work.tokens), len(backbone.sites), len(row.parts))
    stack = stacks.get([experts[p.expert] for p in row.parts])
    router = TOKEN_ROUTERS[work.selection.token_router or "constant"]
    recorder = SiteRecorder(stack[0].ids, whole=work.sample.options.trace == "tokens")
    backbone.run([work.tokens], build_mix([row], stack, router, recorder))
    return recorder.traces


def _row_key(work: Work) -> Hashable:
    s = work.selection
    experts = tuple((e.id, e.version, e.weight, e.prior, e.fixed) for e in s.experts)
    return (tuple(work.tokens), experts, s.strength, s.mode, s.token_router, s.top_k)
