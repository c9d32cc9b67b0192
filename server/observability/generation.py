"""Metrics of text being written: first tokens, the time between tokens, rows, and memory.

Among them the gauge that gateways of the inference extension (proposal 003) look at to send
requests where an adapter is in use already.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from experts.versions import parse_reference
from server.engine.generation.loop import GenerationLoop
from server.engine.generation.messages import Finish, Piece
from server.engine.generation.outcomes import Outcomes

FIRST = (.005, .01, .02, .05, .1, .2, .3, .5, .75, 1, 1.5, 2, 3, 5, 10, 20, 60)  # fmt: skip
BETWEEN = (.001, .002, .005, .01, .02, .03, .05, .075, .1, .15, .2, .3, .5, 1, 2, 5)  # fmt: skip
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
FINISHES = (*get_args(Finish), "error")
ADAPTER_LISTS = ("running_lora_adapters", "waiting_lora_adapters")
"""Labels that name several experts, with commas between them."""


class GenerationMetrics:
    """Counts what every step brings; fits `GenerationLoop.on_step`.

    Args:
        busy: the seconds of all that the engine does.
    """

    def __init__(self, registry: CollectorRegistry, busy: Counter) -> None:
        self.busy = busy
        p, r = "sailplane_", registry
        self.first = Histogram(
            f"{p}time_to_first_token_seconds", "From request to first token, with routing.",
            buckets=FIRST, registry=r,
        )  # fmt: skip
        self.between = Histogram(
            f"{p}inter_token_seconds", "Between two tokens of a prompt.",
            buckets=BETWEEN, registry=r,
        )  # fmt: skip
        self.read = Counter(
            f"{p}prompt_tokens",
            "Tokens of prompts read, none of those kept of others.",
            registry=r,
        )
        self.reused = Counter(
            f"{p}prompt_tokens_reused", "Tokens of prompts kept of others that began alike.",
            registry=r,
        )  # fmt: skip
        self.written = Counter(f"{p}generated_tokens", "Tokens written.", registry=r)
        self.ended = Counter(f"{p}texts", "Texts ended, by how.", ["finish"], registry=r)
        for finish in FINISHES:  # from 0 on: Prometheus sees no rise to the first sample
            self.ended.labels(finish)
        self.step = Histogram(
            f"{p}generation_step_seconds", "Time of a step of all rows.",
            buckets=BETWEEN, registry=r,
        )  # fmt: skip
        self.rows = Histogram(f"{p}generation_rows", "Rows a step.", buckets=ROWS, registry=r)

    def __call__(self, out: Outcomes, seconds: float) -> None:
        """Count one step."""
        self.busy.inc(seconds)
        for value in out.first_after:
            self.first.observe(value)
        for value in out.between:
            self.between.observe(value)
        self.read.inc(out.read)
        self.reused.inc(out.reused)
        self.written.inc(out.tokens)
        if out.tokens:
            self.step.observe(seconds)
            self.rows.observe(out.tokens)
        for _, event in out.events:
            if not isinstance(event, Piece):
                self.ended.labels("error").inc()
            elif event.finish:
                self.ended.labels(event.finish).inc()


class LoopCollector(Collector):
    """The state of the loop at scrape time."""

    def __init__(self, loop: GenerationLoop) -> None:
        self._loop = loop

    def collect(self) -> Iterator[Metric]:
        """Rows, prompts, memory and experts now."""
        loop = self._loop
        for name, text, value in (
            ("running_rows", "Texts being written.", len(loop.batch.rows)),
            ("waiting_prompts", "Prompts that wait for a row.", loop.waiting),
            ("kv_used_ratio", "Memory for keys and values in use.",
             loop.budget.used / loop.budget.total),
            ("prefix_bytes", "Bytes of prompts' beginnings, kept for others.",
             loop.prefixes.nbytes),
            ("expert_bank_bytes", "Bytes of the running rows' experts, side by side.",
             loop.batch.bank_bytes),
        ):  # fmt: skip
            yield GaugeMetricFamily(f"sailplane_{name}", text, value=value)
        running, waiting = loop.batch.refs, loop.waiting_refs
        adapters = GaugeMetricFamily(
            "sailplane_lora_requests_info", "Experts in use and waited for; when that was so.",
            labels=["max_lora", *ADAPTER_LISTS],
        )  # fmt: skip
        adapters.add_metric(
            [str(loop.max_rows), _names(running), _names(waiting)], round(time.time(), 3)
        )
        yield adapters


def _names(refs: list[str]) -> str:
    return ",".join(dict.fromkeys(parse_reference(ref)[0] for ref in refs))
