"""The engine: a batch of samples in, one outcome each out. `Engine.run` is the life of a request.

Synchronous and single-threaded: `EngineService` feeds it from a queue. A sample that cannot be
served fails alone; its error stands in its place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch

from experts.backbones import Backbone, LanguageModel
from experts.embedder import Embedder
from experts.errors import ExpertError
from experts.library import Entry, Library
from experts.scanning import Progress
from experts.snapshot import Changes, Snapshot
from experts.stacks import STACK_BYTES, StackCache
from experts.statements import read_statements
from experts.tiers import Tiers
from routers.presets import DEFAULT, Preset
from server.engine import answering
from server.engine.features import DEFAULT_ENTRIES, FeatureStore
from server.engine.generation.loop import GenerationLoop
from server.engine.judging import Judge
from server.engine.loading import Pinned, require_loaded
from server.engine.messages import Outcome, Sample
from server.engine.passes import forward
from server.engine.queue import Result
from server.engine.ranking import listen_again, rank
from server.engine.reading import read
from server.engine.routing import Routing, presets_with_default
from server.engine.sharing import follow, parted
from server.engine.tracing import trace_of
from server.engine.view import Built
from server.engine.work import Clock, Work, alive
from server.errors import ServerError

log = logging.getLogger("sailplane.engine")


class Engine:
    """One frozen backbone, one library of experts, and every way to route between them."""

    def __init__(
        self, backbone: Backbone, library: Library, tiers: Tiers, *,
        embedder: Embedder | None = None, router: str = DEFAULT, top_k: int | None = None,
        pin: Sequence[str] = (), stack_bytes: int = STACK_BYTES,
        generation: GenerationLoop | None = None, feature_entries: int = DEFAULT_ENTRIES,
    ) -> None:  # fmt: skip
        """Put an engine together.

        Args:
            generation: writes, where the backbone can. The others: see `server.settings`.
        """
        self.backbone, self.library, self.tiers = backbone, library, tiers
        self.embedder = embedder or backbone
        self.words = FeatureStore(backbone.embed, feature_entries)
        shared = self.embedder is backbone
        embed = self.embedder.embed
        self.asked = self.words if shared else FeatureStore(embed, feature_entries)
        self.inputs = FeatureStore(backbone.features, feature_entries)
        self.said = FeatureStore(partial(read_statements, backbone), feature_entries)
        self.stacks = StackCache(stack_bytes)
        self.pinned = tuple(pin)
        self.generation = generation
        self.presets: Mapping[str, Preset] = presets_with_default(router)
        self.routing = Routing(
            backbone, self.embedder, library, self.asked, self.inputs, self.presets, top_k
        )

    def run(self, samples: Sequence[Sample]) -> list[Result]:
        """Answer a mixed batch. See "Life of a request" in docs/architecture.md."""
        clock, board = Clock(), [Work(sample) for sample in samples]
        own, led = parted(board)
        before, built = self.library.snapshot, self.routing.current()
        decide = partial(self.routing.decide, built)
        with torch.inference_mode(), ExitStack() as pinned:
            held = Pinned(self.tiers, pinned)
            with clock.stage("instruction"):
                self._each(own, partial(self.routing.plan, built))
                held.begin(own)
            with clock.stage("embed"):
                read(self.backbone, self.embedder, board)
                self.routing.warm(alive(own))
            with clock.stage("select"):
                for work in [w for w in alive(own) if w.decision is None]:
                    self._each([work], decide)
                    held.begin([work])
            with clock.stage("load"):
                held.load(own, decide, self.library)
                follow(own, led)
                entries = held.entries(self.library)
                self._each(board, lambda work: require_loaded(work, held, entries))
            self._predict(
                [w for w in alive(board) if w.sample.predict], held, entries, built, clock
            )
        self._free(before)
        stages = tuple(clock.stages)
        return [
            w.error
            or Outcome(w.answer, trace_of(w, clock, held.found, built), len(w.tokens), stages)
            for w in board
        ]

    def _predict(
        self, asked: Sequence[Work], held: Pinned, entries: Mapping[str, Entry], built: Built,
        clock: Clock,
    ) -> None:  # fmt: skip
        """Steps 7 to 9: the mixed passes, and what they say to each sample."""
        if isinstance(self.backbone, LanguageModel):
            with clock.stage("forward"):
                questions = [w for w in asked if w.sample.question]
                rank(self.backbone, self.stacks, held.experts, entries, questions)
                self._each(asked, partial(listen_again, self.backbone, self.stacks, held.experts))
            asked = [w for w in asked if not (w.sample.question or w.sample.record)]
        with clock.stage("embed"):
            judge = Judge(self.words, self.said, built.placing)
            answering.warm(asked, entries, self.words, judge)
        with clock.stage("forward"):
            forward(self.backbone, self.stacks, held.experts, asked)
        answer = partial(
            answering.answer, entries=entries, words=self.words, judge=judge,
            temperature=built.calibration.temperature,
        )  # fmt: skip
        self._each(asked, answer)

    def catch_up(self, progress: Progress | None = None) -> None:
        """See the library as it is now, not at the next request: routers, and what is pinned.

        Args:
            progress: told how many experts routers have seen.

        Raises:
            CorruptExpert: the library's constants are damaged.
        """
        self.routing.catch_up(progress)
        here = [entry.ref for id in self.pinned if (entry := self.library.entries.get(id))]
        for ref, error in self.tiers.keep(here).items():
            log.warning("expert %s is to be pinned and cannot be loaded: %s", ref, error.message)

    @contextmanager
    def changing(self) -> Generator[None]:
        """Around a change of the library: on leaving, all of the engine has followed it."""
        before = self.library.snapshot
        try:
            yield
        finally:
            if self.library.snapshot is not before:
                self._free(before)  # first: what is pinned must not be found in memory as it was
                self.catch_up()

    def scan(self, *, again: bool = False) -> Changes:
        """Look at the library's folder, and follow what others changed there.

        Args:
            again: see `Library.refresh`.

        Raises:
            CorruptExpert: as `Library.refresh`; the library is as before.
        """
        with self.changing():
            return self.library.refresh(again=again)

    def _free(self, before: Snapshot) -> None:
        """Let go of tensors that the library had and has no more; who holds them may finish.

        A batch does it too, for what it stacked while a change went on beside it.
        """
        if before is self.library.snapshot:
            return
        for ref in self.library.snapshot.gone_since(before):
            self.tiers.drop(ref)
            self.stacks.drop(ref)

    def expect(self, samples: Sequence[Sample]) -> None:
        """Begin to load the experts that callers named, before their samples' turn comes."""
        self.tiers.prefetch(self.routing.named_refs(samples))

    def _each(self, board: Sequence[Work], step: Callable[[Work], None]) -> None:
        """Run a step for every sample that is still alive; an error ends that sample alone."""
        for work in alive(board):
            try:
                step(work)
            except (ExpertError, ServerError) as error:
                work.error = error
