"""Steps 3 to 5 of a request: features, scores, and the policy's selection.

Owns the catalogue that request routers see, rebuilt when the library changes. Runs no expert.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

from pydantic import ValidationError

from experts.artefacts import REQUEST_ARTEFACTS
from experts.backbones import TextEncoder
from experts.constants import CALIBRATION
from experts.entries import first_error
from experts.errors import BadExpert, CorruptExpert
from experts.library import Entry, Library
from experts.statements import StatementMap
from routers.calibration import Calibration
from routers.catalogue import Catalogue, Routed
from routers.instructions import Instruction, template
from routers.policy import BASE, Decision, Wishes, decide, explicit, ranked_preset
from routers.presets import DEFAULT, PRESETS, Preset
from routers.request import REQUEST_ROUTERS
from routers.types import Features, Query, Selection
from server.engine.features import FeatureStore
from server.engine.messages import RoutingOptions
from server.engine.named import require_expert, require_model, require_sound, require_version
from server.engine.work import Work
from server.errors import RequestError

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
        self._tried: Calibration | None = None

    @property
    def catalogue(self) -> Catalogue:
        """The routable experts of the library's current generation."""
        return self._current()[0]

    @property
    def calibration(self) -> Calibration:
        """The constants in force: the library's."""
        return self._tried or self._current()[1]

    @property
    def statement_map(self) -> StatementMap:
        """How the library places statements on label sets."""
        return self._current()[2]

    def check(self) -> None:
        """Read the library's constants now, not at the first request.

        Raises:
            CorruptExpert: the constants, or the tensors they name, are damaged.
        """
        calibration_of(self.library.calibration)
        self._statement_map()

    @contextmanager
    def trying(self, constants: Calibration) -> Generator[None]:
        """Route by other constants inside the context; nothing is written."""
        self._tried = constants
        try:
            yield
        finally:
            self._tried = None

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
        wishes = self._wishes(options)
        work.preset = ranked_preset(self.presets[name], self.catalogue, wishes)
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
        catalogue, calibration = self.catalogue, self.calibration
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
                require_version(self.library, expert)
            return options.selection
        weights = options.experts
        if weights is None:
            if model == AUTO:
                return None
            if model == self.backbone.id:
                return BASE
            require_model(self.library, self.backbone.id, model)
            weights = {model: 1.0}
        for id in weights:
            require_expert(self.library, id)
        versions = {id: self.library.get(id).manifest.version for id in weights}
        chosen = explicit(weights, versions)
        if options.mode == "token" and len(weights) > 1:
            return chosen.model_copy(
                update={"mode": "token", "token_router": "gate", "top_k": options.top_k or 2}
            )
        return chosen

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
            self._built = (
                snapshot.generation,
                Catalogue(routed, self.backbone.width),
                calibration_of(snapshot.calibration),
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
        width = self.backbone.width
        tensors = self.library.calibration_tensors()
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if shapes == {
            "statement_map": (2 * width, width), "statement_shift": (width,), "statement_scale": (),
        }:  # fmt: skip
            return StatementMap(
                tensors["statement_map"], tensors["statement_shift"],
                float(tensors["statement_scale"]),
            )  # fmt: skip
        if tensors:
            log.warning("the library's statement map is of another form: fit --calibrate it again")
        return StatementMap.identity(width)


def calibration_of(constants: Mapping[str, object] | None) -> Calibration:
    """The stored constants, or the defaults of a library that was never calibrated.

    Raises:
        CorruptExpert: they are not what `fit --calibrate` writes.
    """
    try:
        return Calibration.model_validate(constants or {})
    except ValidationError as error:
        raise CorruptExpert(f"{CALIBRATION}: {first_error(error)}.") from error


def routed_of(entry: Entry) -> Routed:
    """A library entry as the catalogue takes it."""
    manifest = entry.manifest
    forms = tuple(len(label.known) for label in manifest.labels)
    choices = entry.artefacts.choices
    known = choices is not None and len(choices) == sum(forms)
    return Routed(
        entry.id, entry.artefacts, manifest.version, manifest.merge_group, forms if known else ()
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
