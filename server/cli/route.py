"""`sailplane route`: answer one question in the terminal and show why these experts answered.

Knows nothing of HTTP: it runs the engine that `serve` runs, in this process.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from server.cli.common import BAD_USAGE, busy, fail, out
from server.cli.options import with_settings
from server.cli.replay import replay
from server.settings import Origins

if TYPE_CHECKING:
    from server.engine.messages import Answer, Outcome, Trace
    from server.engine.run import Engine
    from server.replay import Asked

SHOWN = 8  # candidates and options listed; all of them are in --json
MOST_TOKENS = 64  # of a text that is written


@with_settings("backbone", "embedder", "library", "router", "top_k", "threads")
def route(
    origins: Origins,
    text: Annotated[str, typer.Argument(help="The input.", metavar="INPUT")] = "",
    choices: Annotated[
        str, typer.Option(help="Options to choose from, separated by commas.", metavar="A,B,...")
    ] = "",
    instructions: Annotated[str, typer.Option(help="What is asked about the input.")] = "",
    model: Annotated[str, typer.Option(help="'auto', an expert's id, or the backbone's.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole trace as JSON.")] = False,
    trace: Annotated[
        Path | None,
        typer.Option("--replay", help="Route what this JSON file holds again.", metavar="TRACE"),
    ] = None,
    question: Annotated[
        int | None, typer.Option(min=0, help="Of several traces in it, the one to replay.")
    ] = None,
) -> None:
    """Answer one question and explain the routing: candidates, scores, selection, reason.

    A backbone that writes, asked without choices, answers with a text; it reads the input alone.

    --replay routes a question again and ends with 0 if the selection is the same; else it says
    what changed and ends with 1. TRACE is what --json printed, which holds the question, or a
    response of the server's, beside which INPUT and --choices say what was asked.
    """
    if trace is not None:
        given = text or choices or instructions or model != "auto"
        said = _asked(origins, text, choices, instructions, model) if given else None
        replay(origins, trace, question, said, as_json=as_json)
    elif question is not None or not text:
        missing = "--question needs --replay" if question is not None else "INPUT is missing"
        raise fail(f"{missing}; see sailplane route --help", BAD_USAGE)
    else:
        _explain(origins, _asked(origins, text, choices, instructions, model), as_json=as_json)


def _explain(origins: Origins, asked: Asked, *, as_json: bool) -> None:
    from server.build import build_engine  # imports torch: not before --help
    from server.engine.messages import Choice, Question, RoutingOptions, Sample

    with busy("Loading backbone and library") as told:
        engine = build_engine(origins.settings, progress=told)
    question = Question("choice", asked.instructions, tuple(Choice(c) for c in asked.choices))
    options = RoutingOptions(trace="full" if as_json else "summary")
    [outcome] = engine.run([Sample(asked.input, question, asked.model, options)])
    if isinstance(outcome, Exception):
        raise outcome
    text = _text(engine, asked, outcome)
    if as_json:
        asked = asked.model_copy(update={"backbone": engine.backbone.id})
        out.print_json(_dump(asked, outcome, text))
    else:
        _show(outcome, text)


def _text(engine: Engine, asked: Asked, outcome: Outcome) -> str | None:
    """What is written where there is nothing to choose from, by a backbone that writes."""
    from experts.backbones import LanguageModel
    from server.written import prompt_of, write

    chosen = outcome.answer is not None and not outcome.answer.refusal
    if asked.choices or chosen or not isinstance(engine.backbone, LanguageModel):
        return None
    prompt = prompt_of(engine.backbone, asked.input, outcome.trace.selection, MOST_TOKENS)
    return write(engine, [prompt])[0] if prompt else None


def _asked(origins: Origins, text: str, choices: str, instructions: str, model: str) -> Asked:
    from server.replay import Asked

    options = tuple(c.strip() for c in choices.split(",") if c.strip())
    if len(set(options)) < len(options) or len(options) == 1:
        raise fail("--choices: expected two or more different options, separated by commas")
    return Asked(
        input=text, instructions=instructions, choices=options, model=model,
        top_k=origins.settings.top_k,
    )  # fmt: skip


def _dump(asked: Asked, outcome: Outcome, text: str | None) -> str:
    """All that a replay needs, with the trace as the server returns it."""
    from pydantic_core import to_json

    from server.api.traces import trace_json

    trace = trace_json(outcome, "full")
    answer = outcome.answer if text is None else {"text": text}
    told = {"asked": asked, "answer": answer, "trace": trace, "tokens": outcome.tokens}
    return to_json(told).decode()


def _show(outcome: Outcome, text: str | None) -> None:
    trace = outcome.trace
    out.print(f"[bold]Instruction[/] ({trace.writer}): {trace.instruction or 'none'}")
    out.print(_candidates(trace))
    if trace.calibration_note:
        out.print(f"[bold]Calibration[/]: {trace.calibration_note}")
    if trace.confidence is not None:
        out.print(f"[bold]Confidence[/]: {trace.confidence:.2f}")
    out.print(f"[bold]Selection[/] ({trace.selection.mode}): {trace.selection.reason}")
    if text is not None:
        out.print(f"[bold]Text[/]: {escape(text)}", soft_wrap=True, highlight=False)
    elif outcome.answer is not None:
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
