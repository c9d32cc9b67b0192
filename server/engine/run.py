"""The engine: a batch of samples in, one outcome each out. `Engine.run` is the life of a request.

Synchronous and single-threaded: `EngineService` feeds it from a queue. A sample that cannot be
served fails alone; its error stands in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import torch

from experts.backbones import TextEncoder
from experts.cache import ExpertCache
from experts.embedder import Embedder
from experts.errors import ExpertError
from experts.library import Library
from experts.stacks import StackCache
from experts.statements import read_statements
from routers.presets import DEFAULT, Preset
from server.engine import answering
from server.engine.features import FeatureStore
from server.engine.judging import Judge
from server.engine.loading import Pinned, require_loaded
from server.engine.messages import Outcome, Sample
from server.engine.passes import forward
from server.engine.queue import Result
from server.engine.reading import read
from server.engine.routing import Routing, presets_with_default
from server.engine.tracing import trace_of
from server.engine.work import Clock, Work, alive
from server.errors import ServerError


class Engine:
    """One frozen backbone, one library of experts, and every way to route between them."""

    def __init__(
        self, backbone: TextEncoder, library: Library, cache: ExpertCache, *,
        embedder: Embedder | None = None, router: str = DEFAULT, top_k: int | None = None,
    ) -> None:  # fmt: skip
        self.backbone, self.library, self.cache = backbone, library, cache
        self.embedder = embedder or backbone
        self.words = FeatureStore(backbone.embed)
        shared = self.embedder is backbone
        self.asked = self.words if shared else FeatureStore(self.embedder.embed)
        self.inputs = FeatureStore(backbone.features)
        self.said = FeatureStore(partial(read_statements, backbone))
        self.stacks = StackCache()
        self.presets: Mapping[str, Preset] = presets_with_default(router)
        self.routing = Routing(
            backbone, self.embedder, library, self.asked, self.inputs, self.presets, top_k
        )

    def run(self, samples: Sequence[Sample]) -> list[Result]:
        """Answer a mixed batch. See "Life of a request" in docs/architecture.md."""
        clock, board = Clock(), [Work(sample) for sample in samples]
        with torch.inference_mode(), ExitStack() as pinned:
            with clock.stage("instruction"):
                self._each(board, self.routing.plan)
            with clock.stage("embed"):
                read(self.backbone, self.embedder, board)
                self.routing.warm(alive(board))
            with clock.stage("select"):
                self._each([w for w in alive(board) if w.decision is None], self.routing.decide)
            with clock.stage("load"):
                held = Pinned(self.cache, pinned)
                held.load(board, self.routing.decide)
                entries = held.entries(self.library)
                self._each(board, lambda work: require_loaded(work, held, entries))
            asked = [w for w in alive(board) if w.sample.predict]
            with clock.stage("embed"):
                judge = Judge(self.words, self.said, self.routing.statement_map)
                answering.warm(asked, entries, self.words, judge)
            with clock.stage("forward"):
                forward(self.backbone, self.stacks, held.experts, asked)
            self._each(asked, lambda work: answering.answer(work, entries, self.words, judge))
        version, note = self.routing.calibration.version, self.routing.calibration_note
        return [
            w.error
            or Outcome(w.answer, trace_of(w, clock, held.held, version, note), len(w.tokens))
            for w in board
        ]

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, special ones included."""
        return len(self.backbone.tokens([text])[0])

    def _each(self, board: Sequence[Work], step: Callable[[Work], None]) -> None:
        """Run a step for every sample that is still alive; an error ends that sample alone."""
        for work in alive(board):
            try:
                step(work)
            except (ExpertError, ServerError) as error:
                work.error = error
