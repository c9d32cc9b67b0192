"""Fill in the instructions that callers left out, before samples are queued.

Waiting for a language model happens here, in the event loop: the engine's thread never waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from routers.instructions import InstructionWriter, template
from routers.presets import Preset
from routers.request import REQUEST_ROUTERS
from routers.types import Query
from server.engine.messages import Sample
from server.engine.routing import AUTO, seen_query
from server.engine.work import Work

SHARE = 0.5
"""The part of a request's time that writing may take; the rest is for answering."""


async def with_instructions(
    samples: Sequence[Sample],
    writer: InstructionWriter,
    presets: Mapping[str, Preset],
    deadline: float | None = None,
) -> Sequence[Sample]:
    """The samples, with `written` set where a router will read it and the caller said nothing.

    Of samples that share a selection, the first alone is routed.

    Args:
        deadline: of the request, on the clock of `time.monotonic`.
    """
    routed = {id(s.shared or s): i for i, s in reversed([*enumerate(samples)])}.values()
    queries = {i: q for i in sorted(routed) if (q := unsaid(samples[i], presets)) is not None}
    if not queries:
        return samples
    left = None if deadline is None else max(0.0, (deadline - time.monotonic()) * SHARE)
    begun = time.perf_counter()
    try:
        async with asyncio.timeout(left):
            written = await writer.write(list(queries.values()))
    except TimeoutError:
        written = [template(query, "timeout") for query in queries.values()]
    spent = (time.perf_counter() - begun) * 1e3
    filled = list(samples)
    for i, instruction in zip(queries, written, strict=True):
        filled[i] = replace(samples[i], written=instruction, writing_ms=spent)
    return filled


def unsaid(sample: Sample, presets: Mapping[str, Preset]) -> Query | None:
    """The query of a sample that routes by an instruction and has none; None for any other."""
    options = sample.options
    if sample.model != AUTO or options.selection is not None or options.experts is not None:
        return None
    preset = presets.get(options.router or "default")
    if preset is None or preset.request is None:
        return None
    if not REQUEST_ROUTERS[preset.request].needs & {"instruction", "sentence"}:
        return None
    query = seen_query(Work(sample))
    return None if query.instruction else query
