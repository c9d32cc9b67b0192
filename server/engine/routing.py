"""Steps 3 to 5 of a request: features, scores, and the policy's selection.

Owns the catalogue that request routers see, rebuilt when the library changes. Runs no expert.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

from experts.artefacts import REQUEST_ARTEFACTS
from experts.backbones import TextEncoder
from experts.errors import BadExpert, MixError
from experts.library import Entry, Library
from experts.statements import StatementMap
from routers.calibration import Calibration
from routers.catalogue import Catalogue, Routed
from routers.instructions import Instruction, template
from routers.policy import BASE, Decision, Wishes, decide, explicit
from routers.presets import DEFAULT, PRESETS, Preset
from routers.request import REQUEST_ROUTERS
from routers.token import TOKEN_ROUTERS
from routers.types import Features, Query, Selection
from server.engine.features import FeatureStore
from server.engine.messages import RoutingOptions
from server.engine.work import Work
from server.errors import RequestError, UnknownModel

AUTO = "auto"

log = logging.getLogger("sailplane.routing")


class Routing:
    """Decides for a board of samples which experts answer."""

    def __init__(
        self, backbone: TextEncoder, library: Library, words: FeatureStore, inputs: FeatureStore,
        presets: Mapping[str, Preset], top_k: int | None = None,
    ) -> None:  # fmt: skip
        self.backbone, self.library = backbone, library
        self.words, self.inputs = words, inputs
        self.presets, self.top_k = presets, top_k
        self._built: tuple[int, Catalogue, Calibration, StatementMap] | None = None

    @property
    def catalogue(self) -> Catalogue:
        """The routable experts of the library's current generation."""
        return self._current()[0]

    @property
    def calibration(self) -> Calibration:
        """The library's constants."""
        return self._current()[1]

    @property
    def statement_map(self) -> StatementMap:
        """How the library places statements on label sets."""
        return self._current()[2]

    def plan(self, work: Work) -> None:
        """Who decides: the caller (a finished selection), or a preset and its query.

        Raises:
            UnknownModel, UnknownExpert, RequestError: the caller named what is not there.
        """
        sample, options = work.sample, work.sample.options
        named = self._named(sample.model, options)
        if named is not None:
            work.decision = Decision(named)
            return
        name = options.router or "default"
        if name not in self.presets:
            known = ", ".join(self.presets)
            raise RequestError(f"router {name!r} is unknown; there are: {known}.",
                               param="routing.router")  # fmt: skip
        work.preset = self.presets[name]
        work.query = seen_query(work)
        work.instruction = work.sample.written or _instruction(work.query)

    def warm(self, board: Sequence[Work]) -> None:
        """Compute the features that the samples' routers need, in as few passes as possible."""
        routed = [(w, self._needs(w)) for w in board if w.preset]
        self.inputs.warm(w.query.input for w, needs in routed if "input" in needs)
        self.words.warm(
            text
            for w, needs in routed
            for text in (
                *([_sentence(w)] if "instruction" in needs and _sentence(w) else []),
                *(w.query.choices if "choices" in needs else ()),
            )
        )

    def decide(self, work: Work) -> None:
        """Score and decide; features are in the store by now."""
        assert work.preset is not None
        if work.preset.request is None:
            work.decision = Decision(BASE)
            return
        catalogue, calibration, _ = self._current()
        router = REQUEST_ROUTERS[work.preset.request]
        work.catalogue_ids = catalogue.ids
        work.scores = router.score(self._features(work), catalogue, calibration)
        work.decision = decide(
            work.preset, work.scores, catalogue, calibration, self._wishes(work.sample.options)
        )

    def _named(self, model: str, options: RoutingOptions) -> Selection | None:
        """The selection of a caller who left nothing to a router."""
        if options.selection is not None:
            require_sound(options.selection)
            for expert in options.selection.experts:
                self.library.get(expert.id)
            return options.selection
        weights = options.experts
        if weights is None:
            if model == AUTO:
                return None
            if model == self.backbone.id:
                return BASE
            if model not in self.library.entries:
                self._refuse_bad(model)
                raise UnknownModel(f"Model {model!r} is not here; GET /v1/models lists them.",
                                   param="model")  # fmt: skip
            weights = {model: 1.0}
        for id in weights:
            self._refuse_bad(id)
        versions = {id: self.library.get(id).manifest.version for id in weights}
        chosen = explicit(weights, versions)
        if options.mode == "token" and len(weights) > 1:
            return chosen.model_copy(
                update={"mode": "token", "token_router": "gate", "top_k": options.top_k or 2}
            )
        return chosen

    def _refuse_bad(self, id: str) -> None:
        """An expert that is listed as bad is refused with its reason, never served as the base."""
        if id not in self.library.entries and id in self.library.bad:
            raise BadExpert(f"Expert {id!r} cannot be served: {self.library.bad[id]}")

    def _wishes(self, options: RoutingOptions) -> Wishes:
        allow = frozenset(options.allow) if options.allow is not None else None
        return Wishes(options.top_k or self.top_k, options.mode, allow, frozenset(options.deny))

    def _needs(self, work: Work) -> frozenset[str]:
        if work.preset is None or work.preset.request is None:
            return frozenset()
        return REQUEST_ROUTERS[work.preset.request].needs

    def _features(self, work: Work) -> Features:
        query, needs, sentence = work.query, self._needs(work), _sentence(work)
        return Features(
            self.inputs.get(query.input) if "input" in needs else None,
            self.words.get(sentence) if "instruction" in needs and sentence else None,
            self.words.stack(query.choices) if "choices" in needs and query.choices else None,
        )

    def _current(self) -> tuple[Catalogue, Calibration, StatementMap]:
        snapshot = self.library.snapshot
        if self._built is None or self._built[0] != snapshot.generation:
            routed = [routed_of(e) for e in snapshot.entries.values() if self._routable(e)]
            constants = snapshot.calibration
            self._built = (
                snapshot.generation,
                Catalogue(routed, self.backbone.width),
                Calibration.model_validate(constants) if constants else Calibration(),
                self._statement_map(),
            )
        return self._built[1:]

    def _routable(self, entry: Entry) -> bool:
        """Whether routers can score it: an expert fitted for another embedder cannot be compared.

        One whose files went bad since they were listed must not stop the routing of all others.
        """
        try:
            if not entry.routable:
                return False
        except BadExpert as error:
            log.warning("expert %s is left out of routing: %s", entry.id, error.message)
            return False
        artefacts, width = entry.artefacts, self.backbone.width
        rows = [getattr(artefacts, name) for name in REQUEST_ARTEFACTS]
        fits = artefacts.embedder == self.backbone.fingerprint
        if not (fits and all(t is None or t.shape[1] == width for t in rows)):
            log.warning("expert %s is left out of routing: fitted for other features", entry.id)
            return False
        return True

    def _statement_map(self) -> StatementMap:
        tensors = self.library.calibration_tensors()
        if "statement_map" not in tensors:
            return StatementMap.identity(self.backbone.width)
        return StatementMap(
            tensors["statement_map"], tensors["statement_shift"], float(tensors["statement_scale"])
        )


def require_sound(selection: Selection) -> None:
    """Check a selection that a caller sent: the policy's own are sound.

    Raises:
        MixError: it contradicts itself, or its numbers are not finite.
    """
    if (selection.mode == "base") == bool(selection.experts):
        raise MixError(f"A selection of mode {selection.mode!r} has the wrong number of experts.")
    if (selection.mode == "token") != (selection.token_router in TOKEN_ROUTERS):
        known = ", ".join(TOKEN_ROUTERS)
        raise MixError(f"Mode 'token', and it alone, has a token_router: {known}.")
    numbers = [n for e in selection.experts for n in (e.weight, e.prior)]
    if not all(map(math.isfinite, (selection.strength, *numbers))):
        raise MixError("Weights, priors and strength of a selection must be finite.")


def routed_of(entry: Entry) -> Routed:
    """A library entry as the catalogue takes it."""
    manifest = entry.manifest
    forms = tuple(len(label.known) for label in manifest.labels)
    choices = entry.artefacts.choices
    known = choices is not None and len(choices) == sum(forms)
    return Routed(
        entry.id, entry.artefacts, manifest.version, manifest.kind, forms if known else ()
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


def _sentence(work: Work) -> str:
    """The instruction as the request router embeds it."""
    return work.instruction.sentence if work.instruction else ""
