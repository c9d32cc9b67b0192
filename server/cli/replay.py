"""`sailplane route --replay`: route a question again and say what changed since.

What is compared, and how, is `server.replay`'s matter. A router or top_k that no setting names is
the trace's own, so that the trace alone suffices.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from server.cli.common import BAD_USAGE, FAILED, busy, fail, out
from server.settings import DEFAULT, Origins

if TYPE_CHECKING:
    from routers.types import Selection
    from server.engine.messages import Sample
    from server.engine.run import Engine
    from server.replay import Asked, Change, Comparison, Recording

WORDS = {
    "router": "another router",
    "calibration": "another calibration",
    "generation": "the library is another",
    "backbone": "another backbone",
    "top_k": "another top_k",
    "instruction": "another instruction",
    "writer": "another writer of the instruction",
    "version": "was replaced",
    "removed": "was removed",
    "bad": "cannot be served",
    "added": "is a new candidate, with a score of",
    "score": "scores otherwise",
    "truncated": "another part was cut off",
    "load": "could not be loaded once",
    "error": "cannot be routed now",
}


def replay(
    origins: Origins, path: Path, question: int | None, said: Asked | None, *, as_json: bool
) -> None:
    """Compare a kept trace with one made now; ends the command with 1 if the selection differs.

    Args:
        said: the question as the command line says it, None where it says nothing.
    """
    from server.build import build_engine  # imports torch: not before --help
    from server.errors import ReplayError
    from server.replay import read_recording

    try:
        recording = read_recording(path.read_bytes(), question)
        asked = _question(recording, said)
    except OSError as error:
        raise fail(f"{path}: {error.strerror}", BAD_USAGE) from None
    except ReplayError as error:
        raise fail(error.message, BAD_USAGE) from None
    with busy("Loading backbone and library"):
        engine = build_engine(origins.settings)
    comparison = _compared(engine, origins, recording, asked)
    if as_json:
        _print_json(comparison)
    else:
        _show(comparison)
    if not comparison.same:
        raise typer.Exit(FAILED)


def _question(recording: Recording, said: Asked | None) -> Asked:
    """The question to ask again: the trace's own, or else the command line's.

    Raises:
        ReplayError: both say it, or neither does.
    """
    from server.errors import ReplayError

    if recording.asked is not None:
        if said is not None:
            raise ReplayError(
                "The trace holds its question: leave out INPUT, --choices, --instructions, --model."
            )
        return recording.asked
    trace = recording.trace
    if said is None or not said.input:
        raise ReplayError("The trace does not hold its question: give INPUT, and --choices if any.")
    if trace.router == "explicit" and said.model == "auto":
        raise ReplayError(
            "The caller named the experts of this trace, so nothing was routed; --model EXPERT "
            "asks for one of them again."
        )
    if not said.choices and any("choices" in c.views for c in trace.candidates):
        raise ReplayError("The question had choices: give them with --choices A,B,...")
    if said.instructions or trace.writer != "caller":
        return said
    return said.model_copy(update={"instructions": trace.instruction})


def _compared(engine: Engine, origins: Origins, recording: Recording, asked: Asked) -> Comparison:
    from pydantic_core import to_json

    from server.api.traces import TraceBody, trace_json
    from server.replay import Now, compare

    sample = _sample(engine, origins, recording, asked)
    [result] = engine.run([sample])
    if isinstance(result, Exception):
        after = str(getattr(result, "message", result))
    else:
        after = TraceBody.model_validate_json(to_json(trace_json(result, "summary")))
    library = engine.library
    versions = {id: entry.manifest.version for id, entry in library.entries.items()}
    top_k = sample.options.top_k or origins.settings.top_k
    now = Now(versions, library.bad, engine.backbone.id, top_k)
    return compare(recording.trace, after, now, recording.asked)


def _sample(engine: Engine, origins: Origins, recording: Recording, asked: Asked) -> Sample:
    """The question as it is asked again; an instruction that a language model wrote is kept."""
    from routers.instructions import Instruction
    from server.engine.messages import Choice, Question, RoutingOptions, Sample

    trace = recording.trace
    routed = asked.model == "auto"
    own_router = routed and origins.of["router"] == DEFAULT and trace.router in engine.presets
    options = RoutingOptions(
        router=trace.router if own_router else None,
        top_k=asked.top_k if routed and origins.of["top_k"] == DEFAULT else None,
        truncate=bool(trace.truncated),
    )
    question = Question("choice", asked.instructions, tuple(Choice(c) for c in asked.choices))
    written = Instruction(trace.instruction, "openai") if trace.writer == "openai" else None
    return Sample(asked.input, question, asked.model, options, predict=False, written=written)


def _print_json(comparison: Comparison) -> None:
    from pydantic_core import to_json

    out.print_json(to_json(comparison).decode())


def _show(comparison: Comparison) -> None:
    if comparison.same:
        out.print("same selection")
        return
    table = Table("", "before", "now", title="Another selection")
    after = comparison.after
    table.add_row("mode", comparison.before.mode, after.mode if after else "")
    table.add_row("experts", _experts(comparison.before), _experts(after) if after else "")
    table.add_row("reason", escape(comparison.before.reason), escape(after.reason) if after else "")
    out.print(table)
    if not comparison.changes:
        out.print(
            "Nothing that a trace holds changed. Wishes of the request (routing.allow, deny, mode, "
            "top_k) are not in it.", soft_wrap=True,
        )  # fmt: skip
        return
    causes = Table("expert", "what changed", "before", "now", title="What changed")
    for change in comparison.changes:
        causes.add_row(*_cells(change))
    out.print(causes)


def _experts(selection: Selection) -> str:
    return "\n".join(escape(f"{e.ref} {e.weight:.3f}") for e in selection.experts) or "none"


def _cells(change: Change) -> tuple[str, ...]:
    told = ("" if v is None else escape(f"{v}") for v in (change.before, change.after))
    return change.expert or "", WORDS[change.kind], *told
