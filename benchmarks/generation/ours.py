"""Our engine under measurement: the generation loop over a random backbone and its adapters.

Without HTTP and without routing, as the peers are measured: prompts go straight into the loop with
a selection each. Adapters are read as the library reads them, with random gates for token mode.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.generation.shapes import Shape, adapters, checkpoint
from experts.backbones import LanguageModel, open_backbone
from experts.host import HostExpert
from experts.kinds import KINDS, Adapter
from experts.tiers import Tiers
from routers.types import Chosen, Selection
from server.engine.generation.loop import GenerationLoop
from server.engine.generation.messages import Piece, Prompt, Sampling
from server.engine.generation.request import Request, Ticket

KV_BYTES = 2 << 30
EXPERT_BYTES = 4 << 30
BARE = Selection(mode="base")


class Listener(Ticket):
    """Notes when the pieces of one text came."""

    def __init__(self) -> None:
        super().__init__(_AtOnce(), 1)  # type: ignore[arg-type]
        self.came: list[float] = []

    def put(self, event: Piece | Exception) -> None:
        """Take a piece; an error ends the measurement."""
        if isinstance(event, Exception):
            raise event
        self.came.append(time.perf_counter())


class _AtOnce(asyncio.AbstractEventLoop):
    """An event loop that runs what it is given at once."""

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any, **_: Any) -> Any:
        callback(*args)


@dataclass(frozen=True)
class Latency:
    """Seconds to the first token (mean), and between tokens (mean)."""

    first: float
    between: float


class Ours:
    """A backbone with `count` adapters, all in memory, on `threads` lanes."""

    def __init__(self, shape: Shape, count: int, threads: int) -> None:
        self.backbone = open_backbone(str(checkpoint(shape)))
        assert isinstance(self.backbone, LanguageModel)
        torch.set_num_threads(1)
        self.backbone.widen(threads)
        self._folders = adapters(shape, count)
        self._tiers = Tiers(
            self._read, dtype=torch.float32, device="cpu", host_bytes=EXPERT_BYTES,
            device_bytes=EXPERT_BYTES,
        )  # fmt: skip
        self._tiers.preload(f"{i}@1" for i in range(count))

    def tokens_per_second(
        self, prompts: Sequence[Sequence[int]], selections: Sequence[Selection], tokens: int
    ) -> float:
        """Tokens written a second when all prompts are there at once, reading them included."""
        loop = self._loop()
        begun = time.perf_counter()
        for prompt, selection in zip(prompts, selections, strict=True):
            loop.put(_request(prompt, selection, tokens))
        while loop.busy:
            loop.step()
        return len(prompts) * tokens / (time.perf_counter() - begun)

    def step_seconds(
        self, prompts: Sequence[Sequence[int]], selections: Sequence[Selection], steps: int
    ) -> float:
        """Median seconds of a step of all rows, once all prompts are read."""
        loop = self._loop()
        for prompt, selection in zip(prompts, selections, strict=True):
            loop.put(_request(prompt, selection, steps + len(prompts)))
        while loop.waiting or any(row.unread for row in loop.batch.rows):
            loop.step()
        seconds: list[float] = []
        for _ in range(steps):
            begun = time.perf_counter()
            loop.step()
            seconds.append(time.perf_counter() - begun)
        self._abandon(loop)
        return median(seconds)

    def latency(
        self, prompts: Sequence[Sequence[int]], selections: Sequence[Selection], tokens: int,
        at: Sequence[float],
    ) -> Latency:  # fmt: skip
        """What callers wait when prompts arrive at these seconds."""
        loop, begun = self._loop(), time.perf_counter()
        asked = [_request(p, s, tokens) for p, s in zip(prompts, selections, strict=True)]
        due = [begun + second for second in at]
        came = 0
        while came < len(asked) or loop.busy:
            while came < len(asked) and due[came] <= time.perf_counter():
                loop.put(asked[came])
                came += 1
            if loop.busy:
                loop.step()
            else:
                time.sleep(max(0.0, min(due[came] - time.perf_counter(), 0.001)))
        listeners = [request.ticket for request in asked]
        first = [t.came[0] - d for t, d in zip(listeners, due, strict=True)]  # type: ignore[attr-defined]
        between = [(t.came[-1] - t.came[0]) / (tokens - 1) for t in listeners]  # type: ignore[attr-defined]
        return Latency(fmean(first), fmean(between))

    def _loop(self) -> GenerationLoop:
        assert isinstance(self.backbone, LanguageModel)
        return GenerationLoop(self.backbone, self._tiers, kv_bytes=KV_BYTES)

    def _abandon(self, loop: GenerationLoop) -> None:
        for row in list(loop.batch.rows):
            row.request.ticket.cancel()
        loop.step()

    def _read(self, ref: str) -> HostExpert:
        folder, sites = self._folders[int(ref.split("@")[0])], self.backbone.sites
        config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        stored = Adapter(config, load_file(folder / "adapter_model.safetensors"))
        fitted = KINDS["lora"].fit(stored, sites, ref)
        rng = torch.Generator().manual_seed(int(ref.split("@")[0]))
        gates = {s: torch.randn(sites[s].in_features, generator=rng) for s in fitted.expert.sites}
        return HostExpert.of(fitted.expert, fitted.scales, {"gate": gates}).named(ref, 1)


def one_each(rows: int, experts: int) -> list[Selection]:
    """Rows with one expert each, in turn."""
    return [_selection([i % experts], "single") for i in range(rows)]


def pairs(rows: int, experts: int, mode: str = "merge", seed: int = 0) -> list[Selection]:
    """Rows with two experts each, drawn anew for every row; `mode` is merge or token."""
    rng = random.Random(seed)
    return [_selection(rng.sample(range(experts), 2), mode) for _ in range(rows)]


def _selection(experts: Sequence[int], mode: str) -> Selection:
    chosen = tuple(Chosen(id=str(e), weight=1 / len(experts)) for e in experts)
    router = "gate" if mode == "token" else None
    return Selection(mode=mode, experts=chosen, token_router=router)  # type: ignore[arg-type]


def _request(prompt: Sequence[int], selection: Selection, tokens: int) -> Request:
    rules = Sampling(tokens, temperature=0, ignore_eos=True)
    return Request(Prompt(tuple(prompt), selection, rules), Listener())
