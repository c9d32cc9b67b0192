"""`sailplane route`: answer one question in the terminal and show why these experts answered.

Knows nothing of HTTP: it runs the engine that `serve` runs, in this process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from server.cli.common import busy, fail, out
from server.cli.options import with_settings
from server.settings import Origins

if TYPE_CHECKING:
    from server.engine.messages import Answer, Outcome, Sample, Trace

SHOWN = 8  # candidates and options listed; all of them are in --json


@with_settings("backbone", "embedder", "library", "router", "top_k", "threads")
def route(
    origins: Origins,
    text: Annotated[str, typer.Argument(help="The input.", metavar="INPUT")],
    choices: Annotated[
        str, typer.Option(help="Options to choose from, separated by commas.", metavar="A,B,...")
    ] = "",
    instructions: Annotated[str, typer.Option(help="What is asked about the input.")] = "",
    model: Annotated[str, typer.Option(help="'auto', an expert's id, or the backbone's.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole trace as JSON.")] = False,
) -> None:
    """Answer one question and explain the routing: candidates, scores, selection, reason."""
    from server.build import build_engine  # imports torch: not before --help

    with busy("Loading backbone and library") as counted:
        engine = build_engine(origins.settings, bar=counted)
    [outcome] = engine.run([_sample(text, choices, instructions, model)])
    if isinstance(outcome, Exception):
        raise outcome
    if as_json:
        out.print_json(_dump(outcome))
    else:
        _show(outcome)


def _sample(text: str, choices: str, instructions: str, model: str) -> Sample:
    from server.engine.messages import Choice, Question, Sample

    options = tuple(Choice(c.strip()) for c in choices.split(",") if c.strip())
    if len(set(options)) < len(options) or len(options) == 1:
        raise fail("--choices: expected two or more different options, separated by commas")
    return Sample(text, Question("choice", instructions, options), model)


def _dump(outcome: Outcome) -> str:
    from pydantic import TypeAdapter

    from server.engine.messages import Outcome

    return TypeAdapter(Outcome).dump_json(outcome).decode()


def _show(outcome: Outcome) -> None:
    trace = outcome.trace
    out.print(f"[bold]Instruction[/] ({trace.writer}): {trace.instruction or 'none'}")
    out.print(_candidates(trace))
    if trace.calibration_note:
        out.print(f"[bold]Calibration[/]: {trace.calibration_note}")
    out.print(f"[bold]Selection[/] ({trace.selection.mode}): {trace.selection.reason}")
    if outcome.answer is not None:
        out.print(_answer(outcome.answer))


def _candidates(trace: Trace) -> Table:
    """Candidates, best first: scores, their parts, and the weights of those selected."""
    views = sorted({view for c in trace.candidates for view in c.views})
    table = Table("expert", "score", *views, "weight", title=f"Router {trace.router}")
    weights = {e.id: e.weight for e in trace.selection.experts}
    for candidate in trace.candidates[:SHOWN]:
        parts = [f"{candidate.views[v]:.3f}" if v in candidate.views else "" for v in views]
        weight = f"{weights[candidate.id]:.2f}" if candidate.id in weights else ""
        table.add_row(candidate.id, f"{candidate.score:.3f}", *parts, weight)
    return table


def _answer(answer: Answer) -> Table | str:
    if answer.refusal:
        return f"[bold]No answer[/]: {answer.refusal}"
    table = Table("choice", "probability", title="Answer")
    pairs = zip(answer.choices, answer.probabilities, strict=True)
    for choice, probability in sorted(pairs, key=lambda p: -p[1])[:SHOWN]:
        table.add_row(choice.text, f"{probability:.1%}")
    return table
