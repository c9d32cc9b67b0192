"""`sailplane batch`: answer a file of requests, through the engine that `serve` runs.

Knows files, bars and exit codes; what a line means is `server.batch`'s matter.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from server.cli.common import BAD_USAGE, FAILED, busy, fail, notes, tame_libraries
from server.cli.options import with_settings
from server.settings import Origins, Settings

if TYPE_CHECKING:
    from server.batch.lines import Reply
    from server.batch.output import Output
    from server.batch.plan import Plan
    from server.batch.run import Tally


class Rate(ProgressColumn):
    """Lines per second."""

    def render(self, task: Task) -> Text:
        """The rate of late."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.0f}/s")


COLUMNS = (TextColumn("lines"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())


@with_settings(
    "backbone", "embedder", "device", "dtype", "quantization", "library", "router", "top_k",
    "writer", "openai_base_url", "openai_model", "openai_api_key", "openai_timeout_ms",
    "openai_concurrency", "local_timeout_ms", "max_batch", "body_limit", "host_bytes",
    "device_bytes", "kv_bytes", "max_rows", "preload", "threads",
)  # fmt: skip
def batch(
    origins: Origins,
    source: Annotated[Path, typer.Argument(help="Requests, one a line.", metavar="IN.jsonl")],
    target: Annotated[Path, typer.Argument(help="Their answers.", metavar="OUT.jsonl")],
    again: Annotated[
        bool, typer.Option("--again", help="Start over: throw away what OUT holds.")
    ] = False,
) -> None:
    """Answer every request of a file; run it again to go on where a run was cut off.

    Lines are OpenAI's batch shape: {"custom_id": "a", "method": "POST", "url": "/v1/decisions",
    "body": {...}}, or /v1/embeddings, /v1/route, /v1/completions or /v1/chat/completions; the body
    is what the server takes, and text is not streamed. Each answer is {"id", "custom_id",
    "response": {"status_code", "request_id", "body"}, "error"}, with the server's body. Answers
    stand in about the order of the input.

    Lines that OUT answers are not asked again, failed ones too: remove them from OUT to have them
    asked. Deadlines (routing.timeout_ms) have no effect, since nobody waits.

    Ends with 0 if OUT answers all lines, and with 1 if some failed or the run broke off.
    """
    settings = origins.settings
    tame_libraries(settings.threads)
    from server.batch.output import open_output  # imports torch: not before --help
    from server.batch.plan import read_plan, resume, start_over
    from server.errors import BatchFileError

    if "-" in (str(source), str(target)):
        raise fail("IN and OUT are files: standard streams cannot be gone on with", BAD_USAGE)
    if target.exists() and source.exists() and source.samefile(target):
        raise BatchFileError(f"{target} is the input: name another output.")
    with busy(f"Reading {source}"):
        plan = read_plan(source, settings.body_limit)
    with open_output(target) as output:
        end = start_over(output.file) if again else resume(plan, output.file)
        try:
            tally, seconds = _run(settings, plan, output, end)
        except KeyboardInterrupt:
            raise fail("stopped; the same command goes on from here") from None
    _tell(plan, tally, seconds)
    if plan.failed or tally.failed:
        raise typer.Exit(FAILED)


def _run(settings: Settings, plan: Plan, output: Output, end: int) -> tuple[Tally, float]:
    """Answer what is left; nothing is loaded when that is nothing."""
    from server.batch.run import Tally, run_batch
    from server.build import build_service

    tally, left = Tally(), plan.total - plan.answered
    if not left:
        output.begin(end)
        return tally, 0.0
    with busy("Loading backbone and library"):
        service = build_service(settings, max_queue=sys.maxsize)
    output.begin(end)
    begun = time.perf_counter()
    with Progress(*COLUMNS, console=notes) as bars:
        bar = bars.add_task("lines", total=left)

        def put(reply: Reply) -> None:
            output.write(reply.written)
            tally.add(reply)
            bars.advance(bar)

        asyncio.run(run_batch(service, plan.tasks(), put))
    output.sync()
    return tally, time.perf_counter() - begun


def _tell(plan: Plan, tally: Tally, seconds: float) -> None:
    rate = f" ({tally.samples / seconds:.0f} samples/s)" if seconds else ""
    before = f"; {plan.answered} lines were answered before" if plan.answered else ""
    told = f"Answered {tally.answered} lines in {seconds:.1f} s{rate}{before}."
    notes.print(told, highlight=False, soft_wrap=True)
    failed = plan.failed + tally.failed
    if failed:
        codes = ", ".join(f"{count} {code}" for code, count in failed.most_common())
        notes.print(f"[red]{failed.total()} lines failed[/]: {codes}.", highlight=False)
