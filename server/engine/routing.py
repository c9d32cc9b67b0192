"""Steps 3 to 5 of a request: features, scores, and the policy's selection.

Looks at the library through its `LibraryView`. Runs no expert.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress

from experts.backbones import Backbone
from experts.embedder import Embedder
from experts.errors import ExpertError, MixError
from experts.library import Library
from experts.scanning import Progress
from experts.statements import StatementMap
from routers.calibration import Calibration
from routers.catalogue import Catalogue
from routers.instructions import Instruction, stand_in, template
from routers.metric import Metric
from routers.policy import BASE, Decision, Wishes, decide, explicit, limit_of, ranked_preset
from routers.presets import DEFAULT, PRESETS, Preset
from routers.request import REQUEST_ROUTERS
from routers.types import Features, Query, Selection
from server.engine.features import FeatureStore
from server.engine.messages import RoutingOptions, Sample
from server.engine.named import (
    require_expert,
    require_model,
    require_one_group,
    require_sound,
    require_version,
)
from server.engine.view import Built, LibraryView, Seen
from server.engine.work import Work
from server.errors import RequestError

AUTO = "auto"


class Routing:
    """Decides for a board of samples which experts answer."""

    def __init__(
        self, backbone: Backbone, embedder: Embedder, library: Library, words: FeatureStore,
        inputs: FeatureStore, presets: Mapping[str, Preset], top_k: int | None = None,
    ) -> None:  # fmt: skip
        self.backbone, self.library = backbone, library
        self.words, self.inputs = words, inputs
        self.presets, self.top_k = presets, top_k
        self.view = LibraryView(backbone, embedder, library)
        self._tried: Built | None = None

    def current(self) -> Built:
        """What is in force: the library as it is now, or what is being tried.

        Whoever reads two things of it that belong together reads them of one `Built`: the library
        may change in between.
        """
        return self._tried or self.view.current()

    @property
    def catalogue(self) -> Catalogue:
        """The routable experts of the library's current generation."""
        return self.current().shortlist.catalogue

    @property
    def calibration(self) -> Calibration:
        """The constants in force."""
        return self.current().calibration

    @property
    def calibration_note(self) -> str | None:
        """What is wrong with the constants, if anything."""
        return self.current().note

    @property
    def statement_map(self) -> StatementMap:
        """How the library places statements on label sets."""
        return self.current().placing

    @property
    def metric(self) -> Metric | None:
        """How the library compares inputs, where it was told."""
        return self.current().metric

    def catch_up(self, progress: Progress | None = None) -> None:
        """Read what is new in the library now, not at the next request.

        Args:
            progress: told how many experts are read.

        Raises:
            CorruptExpert: its constants, or the tensors they name, are damaged.
        """
        self.view.current(progress)

    @contextmanager
    def trying(self, built: Built) -> Generator[None]:
        """Route by this inside the context, whatever becomes of the library; nothing is written."""
        before, self._tried = self._tried, built
        try:
            yield
        finally:
            self._tried = before

    def plan(self, built: Built, work: Work) -> None:
        """Who decides: the caller (a finished selection), or a preset and its query.

        Args:
            built: what is in force for the whole batch.

        Raises:
            UnknownModel, UnknownExpert, RequestError: the caller named what is not there.
        """
        sample, options = work.sample, work.sample.options
        seen = built.within(sample.scope)
        work.generation = seen.snapshot.generation
        named = self._named(seen, sample)
        if named is not None:
            work.decision = Decision(named)
            return
        name = options.router or "default"
        if name not in self.presets:
            known = ", ".join(self.presets)
            raise RequestError(f"router {name!r} is unknown; there are: {known}.",
                               param="routing.router")  # fmt: skip
        wishes = self._wishes(seen, options)
        work.preset = ranked_preset(self.presets[name], seen.shortlist.catalogue, wishes)
        work.query = seen_query(work)
        work.instruction = work.sample.written or _instruction(work.query)

    def named_refs(self, samples: Sequence[Sample]) -> list[str]:
        """References of the experts that callers named; a name that is not there is passed by."""
        refs: dict[str, None] = {}
        for sample in samples:
            options, seen = sample.options, self.library.snapshot.within(sample.scope)
            names: Iterable[str] = ()
            if options.selection is not None:
                names = options.selection.refs
            elif options.experts is not None or sample.model not in (AUTO, self.backbone.id):
                names = options.experts or (sample.model,)
            for name in names:
                with suppress(ExpertError):
                    refs[seen.find(name).ref] = None
        return list(refs)

    def warm(self, board: Sequence[Work]) -> None:
        """Compute the features that the samples' routers need, in as few passes as possible."""
        routed = [(w, self._needs(w)) for w in board if w.preset]
        self.inputs.warm(w.query.input for w, needs in routed if "input" in needs)
        self.words.warm(
            text
            for w, needs in routed
            for text in (
                *([_sentence(w)] if "instruction" in needs and _sentence(w) else []),
                *([_stand_in(w)] if "sentence" in needs and _stand_in(w) else []),
                *(w.query.choices if "choices" in needs else ()),
            )
        )

    def decide(self, built: Built, work: Work, without: Collection[str] = ()) -> None:
        """Score and decide; features are in the store by now.

        Args:
            built: as in `plan`. without: experts that turned out to be of no use.
        """
        assert work.preset is not None
        if work.preset.request is None:
            work.decision = Decision(BASE)
            return
        seen, features = built.within(work.sample.scope), self._features(work)
        wishes = self._wishes(seen, work.sample.options, without)
        catalogue = seen.shortlist.of(features, wishes, limit_of(work.preset, wishes))
        router = REQUEST_ROUTERS[work.preset.request]
        work.catalogue = catalogue
        work.scores = router.score(features, catalogue, built.calibration)
        work.decision = decide(work.preset, work.scores, catalogue, built.calibration, wishes)

    def _named(self, seen: Seen, sample: Sample) -> Selection | None:
        """The selection of a caller who left nothing to a router, or that was decided before."""
        model, options = sample.model, sample.options
        if selection := options.selection or sample.taken:
            require_sound(selection)
            pinned = [require_version(seen.snapshot, e) for e in selection.experts]
            require_one_group(pinned)
            return selection
        weights = options.experts
        if weights is None:
            if model == AUTO:
                return None
            if model == self.backbone.id:
                return BASE
            require_model(seen.snapshot, self.backbone.id, model)
            weights = {model: 1.0}
        named = {name: require_expert(seen.snapshot, name) for name in weights}
        if len({entry.ref for entry in named.values()}) < len(named):
            raise RequestError("An expert is named twice: with and without its version, or by an "
                               "alias.", param="routing.experts")  # fmt: skip
        require_one_group(named.values())
        chosen = explicit(weights, {n: (e.id, e.manifest.version) for n, e in named.items()})
        if options.mode == "token" and len(weights) > 1:
            return self._per_token(seen, chosen, options.top_k or 2)
        return chosen

    def _per_token(self, seen: Seen, chosen: Selection, top_k: int) -> Selection:
        """Named experts mixed per token; those without gates keep their weights.

        Raises:
            MixError: none of them has gates.
        """
        known = {e.id: seen.shortlist.catalogue.get(e.id) for e in chosen.experts}
        experts = tuple(
            e.model_copy(update={"fixed": "gate" not in (r.artefacts.vectors if r else ())})
            for e, r in zip(chosen.experts, known.values(), strict=True)
        )
        if all(e.fixed for e in experts):
            raise MixError("None of these experts has gate vectors; ask for mode 'merge'.")
        said = {"mode": "token", "token_router": "gate", "top_k": top_k, "experts": experts}
        return chosen.model_copy(update=said)

    def _wishes(self, seen: Seen, options: RoutingOptions, without: Collection[str] = ()) -> Wishes:
        allow = None if options.allow is None else seen.reach(options.allow)
        deny = seen.reach(options.deny)
        return Wishes(
            options.top_k or self.top_k,
            options.mode,
            allow,
            deny.union(without) if without else deny,
        )

    def _needs(self, work: Work) -> frozenset[str]:
        if work.preset is None or work.preset.request is None:
            return frozenset()
        return REQUEST_ROUTERS[work.preset.request].needs

    def _features(self, work: Work) -> Features:
        query, needs, sentence = work.query, self._needs(work), _sentence(work)
        input_F = self.inputs.get(query.input) if "input" in needs else None
        return Features(
            None if input_F is None else self.backbone.halfway(input_F),
            self.words.get(sentence) if "instruction" in needs and sentence else None,
            self.words.stack(query.choices) if "choices" in needs and query.choices else None,
            self.words.get(alone) if "sentence" in needs and (alone := _stand_in(work)) else None,
            input_F if "density" in needs else None,
        )


def seen_query(work: Work) -> Query:
    """What the request router may look at; all of it, unless an evaluation narrows it."""
    sample, sees = work.sample, work.sample.options.sees
    question = sample.question
    choices = tuple(c.text for c in question.choices) if question else ()
    caller = sample.options.instruction or (question.instructions if question else "")
    return Query(
        sample.input,
        caller if sees in ("instruction", "all") else "",
        choices if sees in ("choices", "all") else (),
    )


def _instruction(query: Query) -> Instruction:
    """The caller's own sentence stands as it is; without one the template says what is there."""
    return Instruction(query.instruction, "caller") if query.instruction else template(query)


def presets_with_default(router: str) -> dict[str, Preset]:
    """All presets by name, and `default` as another name of one of them.

    A `router` that is no preset leaves `default` out: the caller says so with the known names.
    """
    preset = PRESETS.get(DEFAULT if router == "default" else router)
    return {"default": preset, **PRESETS} if preset else dict(PRESETS)


def _stand_in(work: Work) -> str:
    return stand_in(work.query, work.instruction) if work.instruction else ""


def _sentence(work: Work) -> str:
    """The instruction as the request router embeds it."""
    return work.instruction.sentence if work.instruction else ""
