"""What routers see of the library: a catalogue, its shortlist, and the library's constants.

Made anew when the library changes, from what is new in it alone. Routes nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial

from pydantic import ValidationError
from torch import Tensor

from experts.artefacts import Artefacts
from experts.backbones import Backbone
from experts.constants import CALIBRATION
from experts.embedder import Embedder
from experts.entries import first_error
from experts.errors import BadExpert, CorruptExpert
from experts.library import Entry, Library, Snapshot
from experts.manifest import Manifest
from experts.memory import give_back_freed
from experts.scanning import Progress
from experts.scope import Scope
from experts.snapshot import SCOPES
from experts.statements import StatementMap
from routers.calibration import DATED, Calibration
from routers.catalogue import Catalogue, Routed
from routers.fitting.wording import Wordings
from routers.metric import LEAST_SEEN, Gaussian, Metric
from routers.shortlist import Shortlist
from server.engine.named import reached

log = logging.getLogger("sailplane.routing")
AT_ONCE = 64
"""Experts read before their inputs are worked out together; they take 2 MB."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What one caller may use of one generation of the library."""

    snapshot: Snapshot
    shortlist: Shortlist

    @cached_property
    def reach(self) -> Callable[[tuple[str, ...]], frozenset[str]]:
        """Ids of the experts that names in `allow` or `deny` stand for; see `reached`."""
        return lru_cache(SCOPES)(partial(_reach, self.snapshot))


@dataclass(frozen=True, eq=False)
class Built:
    """What routers see of one generation of the library.

    `note` says what is wrong with the calibration, if anything.
    """

    generation: str
    snapshot: Snapshot
    shortlist: Shortlist
    calibration: Calibration
    placing: StatementMap
    note: str | None = None

    @property
    def metric(self) -> Metric | None:
        """How inputs are compared."""
        return self.shortlist.catalogue.metric

    def within(self, scope: Scope) -> Seen:
        """What a caller may use of it."""
        return self._within(self.snapshot.within(scope))

    def under(self, constants: Calibration) -> Built:
        """The same library under other constants."""
        return replace(self, calibration=constants)

    @cached_property
    def _within(self) -> Callable[[Snapshot], Seen]:
        return lru_cache(SCOPES)(self._seen)

    def _seen(self, snapshot: Snapshot) -> Seen:
        limited = snapshot.scope.limited
        return Seen(
            snapshot, self.shortlist.within(snapshot.entries) if limited else self.shortlist
        )


@dataclass(frozen=True, eq=False)
class Fitted:
    """What is made of the tensors of a library's constants; `name` is their file."""

    name: object
    placing: StatementMap
    metric: Metric | None


class LibraryView:
    """The library as routers see it."""

    def __init__(self, backbone: Backbone, embedder: Embedder, library: Library) -> None:
        self.backbone, self.embedder, self.library = backbone, embedder, library
        self.wordings = Wordings(embedder, library.root)
        self._built: Built | None = None
        self._known: dict[str, tuple[Entry, Routed | None]] = {}
        self._fitted = Fitted(None, StatementMap.identity(backbone.width), None)
        self._building = threading.Lock()

    def current(self, progress: Progress | None = None) -> Built:
        """What routers see of the library's current generation; made anew where it is another."""
        if built := self._up_to_date():
            return built
        with self._building:  # who waited finds it done
            self._built = self._up_to_date() or self._build(self.library.snapshot, progress)
            return self._built

    def _up_to_date(self) -> Built | None:
        built = self._built
        return built if built and built.generation == self.library.generation else None

    def _build(self, snapshot: Snapshot, progress: Progress | None) -> Built:
        """As before where nothing changed: only new entries are read."""
        while not self._refit(snapshot):
            snapshot = self.library.snapshot
        known = {id: before for id, entry in snapshot.entries.items()
                 if (before := self._known.get(id)) and before[0] is entry}  # fmt: skip
        fresh = [entry for id, entry in snapshot.entries.items() if id not in known]
        known |= self._fresh(fresh, progress, len(known))
        self._known = known
        routed = [expert for _, expert in known.values() if expert is not None]
        constants, note = self._constants(snapshot)
        if snapshot.calibration is not None and self._fitted.metric is None:
            note = note or DATED
        if note and not (self._built and self._built.note == note):
            log.warning("%s", note)
        catalogue = Catalogue(routed, metric=self._fitted.metric)
        shortlist = Shortlist(catalogue, self._built and self._built.shortlist)
        if len(fresh) > AT_ONCE:
            give_back_freed()  # as much as all that was kept, in pieces between it
        return Built(
            snapshot.generation, snapshot, shortlist, constants, self._fitted.placing, note
        )

    def _constants(self, snapshot: Snapshot) -> tuple[Calibration, str | None]:
        """A snapshot's constants, and what is wrong with them.

        Where they are damaged, those that were read before stay in force.

        Raises:
            CorruptExpert: they are damaged, and none were read before.
        """
        try:
            constants = calibration_of(snapshot.calibration)
        except CorruptExpert as error:
            if self._built is None:
                raise
            return self._built.calibration, f"{error.message} Those read before stay in force."
        return constants.under(self.embedder.fingerprint, self.backbone.fingerprint)

    def _refit(self, snapshot: Snapshot) -> bool:
        """Read the constants' tensors where they are others; what was made by the old is gone.

        Returns:
            Whether they are the snapshot's: the library's constants may have changed since.
        """
        name = _tensors_of(snapshot)
        if name == self._fitted.name:
            return True
        tensors = self.library.calibration_tensors()
        if name != _tensors_of(self.library.snapshot):
            return False
        metric = Metric.from_tensors(tensors, self.backbone.feature_width)
        self._fitted = Fitted(name, statement_map_of(tensors, self.backbone.width), metric)
        self._known = {}
        return True

    def _fresh(
        self, entries: Sequence[Entry], progress: Progress | None, known: int
    ) -> dict[str, tuple[Entry, Routed | None]]:
        """New entries, and what routers see of each, by id; `known` others are there already."""
        seen: dict[str, tuple[Entry, Routed | None]] = {}
        for start in range(0, len(entries), AT_ONCE):
            some, told = entries[start : start + AT_ONCE], list[tuple[Manifest, Artefacts]]()
            for done, entry in enumerate(some, known + start):
                if progress:
                    progress(done, known + len(entries))
                if (artefacts := self._artefacts(entry)) is not None:
                    told.append((entry.manifest, artefacts))
            routed = {expert.id: expert for expert in routed_all(told, self._fitted.metric)}
            seen |= {entry.id: (entry, routed.get(entry.id)) for entry in some}
        return seen

    def _artefacts(self, entry: Entry) -> Artefacts | None:
        """What an entry tells routers, in short, None where they cannot score it.

        One whose vectors cannot be compared is left out, and one whose files went bad since they
        were listed must not stop the routing of all others.
        """
        try:
            artefacts = self.wordings.of(entry.manifest, entry.read_artefacts())
        except BadExpert as error:
            log.warning("expert %s is no longer served: %s", entry.id, error.message)
            self.library.set_aside(entry, error.message)
            return None
        if not artefacts.routable:
            return None
        if not self._comparable(artefacts):
            log.warning("expert %s is left out of routing: its vectors have other widths", entry.id)
            return None
        return replace(artefacts.slim(), inputs=artefacts.inputs, seen=artefacts.seen)

    def _comparable(self, artefacts: Artefacts) -> bool:
        """Whether vectors are as wide as those of requests."""
        words, inputs = self.embedder.width, self.backbone.width
        widths = ((artefacts.instructions, words), (artefacts.choices, words),
                  (artefacts.centroids, inputs), (artefacts.examples, inputs),
                  (artefacts.inputs, self.backbone.feature_width))  # fmt: skip
        return all(rows is None or rows.shape[1] == width for rows, width in widths)


def _tensors_of(snapshot: Snapshot) -> object:
    """The name of the file that the constants' tensors are in; None without one."""
    return (snapshot.calibration or {}).get("tensors")


def _reach(seen: Snapshot, names: tuple[str, ...]) -> frozenset[str]:
    found = [reached(seen, name) for name in names]
    return found[0] if len(found) == 1 else frozenset[str]().union(*found)


def calibration_of(constants: Mapping[str, object] | None) -> Calibration:
    """The stored constants, or the defaults of a library that was never calibrated.

    Raises:
        CorruptExpert: they are not what `fit --calibrate` writes.
    """
    try:
        return Calibration.model_validate(constants or {})
    except ValidationError as error:
        raise CorruptExpert(f"{CALIBRATION}: {first_error(error)}.") from error


def statement_map_of(tensors: Mapping[str, Tensor], width: int) -> StatementMap:
    """How the library places statements on label sets; the identity where it does not say."""
    mine = {name: tensor for name, tensor in tensors.items() if name.startswith("statement_")}
    shapes = {name: tuple(tensor.shape) for name, tensor in mine.items()}
    if shapes == {
        "statement_map": (2 * width, width), "statement_shift": (width,), "statement_scale": (),
    }:  # fmt: skip
        return StatementMap(
            mine["statement_map"], mine["statement_shift"], float(mine["statement_scale"])
        )
    if mine:
        log.warning("the library's statement map is of another form: fit --calibrate it again")
    return StatementMap.identity(width)


def routed_all(
    told: Sequence[tuple[Manifest, Artefacts]], metric: Metric | None = None
) -> list[Routed]:
    """What manifests and artefacts say, as the catalogue takes it; their inputs by a metric."""
    gaussians = gaussians_of([(a.inputs, a.seen) for _, a in told], metric)
    return [
        Routed(m.id, a.slim(), m.version, m.merge_group, _forms(m, a), gaussian)
        for (m, a), gaussian in zip(told, gaussians, strict=True)
    ]


def _forms(manifest: Manifest, artefacts: Artefacts) -> tuple[int, ...]:
    """Choice vectors a label; empty where they are not those of the labels."""
    forms = tuple(len(label.known) for label in manifest.labels)
    known = artefacts.choices is not None and len(artefacts.choices) == sum(forms)
    return forms if known else ()


def gaussians_of(
    told: Sequence[tuple[Tensor | None, int]], metric: Metric | None
) -> list[Gaussian | None]:
    """What artefacts say of inputs, and of how many, by a metric.

    None where too few inputs were seen for that, or without a metric.
    """
    found: list[Gaussian | None] = [None] * len(told)
    if metric is not None:
        enough = {i: (inputs_PF, seen) for i, (inputs_PF, seen) in enumerate(told)
                  if inputs_PF is not None and seen >= LEAST_SEEN}  # fmt: skip
        made = metric.gaussians([t for t, _ in enough.values()], [n for _, n in enough.values()])
        for i, gaussian in zip(enough, made, strict=True):
            found[i] = gaussian
    return found
