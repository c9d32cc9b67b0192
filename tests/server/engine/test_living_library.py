"""A library that changes while it answers, against a plain model of what must hold.

Every round does something at random: add, replace, roll back, remove, read the folder
again, or ask. The model is a dictionary; what an expert answers depends on its source
alone, so every answer can be told from every other.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from experts.errors import DuplicateExpert, UnknownExpert
from experts.versions import KEPT
from routers.types import Chosen, Selection
from server.build import build_engine
from server.engine.messages import Outcome, RoutingOptions, Sample
from server.engine.run import Engine
from server.errors import ServerError
from server.settings import Settings

SOURCES = ("mood", "weather", "flight", "quiz")
IDS = ("a", "b", "c")
TEXT = "Clear skies over the airfield."


@dataclass
class Model:
    """What must hold: by id the versions that can answer, each with its source."""

    current: dict[str, int] = field(default_factory=dict)
    source: dict[tuple[str, int], str] = field(default_factory=dict)
    highest: dict[str, int] = field(default_factory=dict)

    def versions(self, id: str) -> list[int]:
        return sorted(v for i, v in self.source if i == id)

    def put(self, id: str, version: int, source: str) -> None:
        assert version > self.highest.get(id, 0), "a version names one set of tensors for good"
        self.highest[id] = version
        self.current[id] = version
        self.source[id, version] = source
        former = [v for v in self.versions(id) if v != version]
        for old in former[:-KEPT]:
            del self.source[id, old]

    def remove(self, id: str) -> None:
        for version in self.versions(id):
            del self.source[id, version]
        del self.current[id]


class World:
    """An engine over a folder, its model, and the expected vector of each source."""

    def __init__(self, engine: Engine, written: Path, seed: int) -> None:
        self.engine, self.written = engine, written
        self.rng = random.Random(seed)
        self.model = Model()
        self.expected = {s: self._alone(s) for s in SOURCES}
        self.engine.library.remove("probe")

    def _alone(self, source: str) -> torch.Tensor:
        self.put("probe", source, replace=True)
        return vector(self.ask("probe"))

    def put(self, id: str, source: str, *, replace: bool) -> int:
        entry = self.engine.library.add(
            self.written / source, id, sites=self.engine.backbone.sites, roots=(self.written,),
            replace=replace,
        )  # fmt: skip
        return entry.manifest.version

    def ask(self, model: str, selection: Selection | None = None) -> object:
        options = RoutingOptions(selection=selection, trace="none")
        (result,) = self.engine.run([Sample(TEXT, None, model, options)])
        return result

    # What a round may do.

    def add(self) -> None:
        id, source = self.rng.choice(IDS), self.rng.choice(SOURCES)
        if id in self.model.current:
            with pytest.raises(DuplicateExpert):
                self.put(id, source, replace=False)
        else:
            self.model.put(id, self.put(id, source, replace=False), source)

    def replace(self) -> None:
        id, source = self.rng.choice(IDS), self.rng.choice(SOURCES)
        self.model.put(id, self.put(id, source, replace=True), source)

    def roll_back(self) -> None:
        id = self.rng.choice(IDS)
        if not (versions := self.model.versions(id)):
            with pytest.raises(UnknownExpert):
                self.engine.library.roll_back(id, 1)
            return
        version = self.rng.choice(versions)
        self.engine.library.roll_back(id, version)
        self.model.current[id] = version

    def remove(self) -> None:
        id = self.rng.choice(IDS)
        if id not in self.model.current:
            with pytest.raises(UnknownExpert):
                self.engine.library.remove(id)
            return
        self.engine.library.remove(id)
        self.model.remove(id)

    def refresh(self) -> None:
        self.engine.library.refresh()

    def ask_current(self) -> None:
        id = self.rng.choice(IDS)
        found = self.ask(id)
        if id in self.model.current:
            self.must_be(found, self.model.source[id, self.model.current[id]])
        else:
            assert isinstance(found, ServerError)

    def ask_version(self) -> None:
        id, version = self.rng.choice(IDS), self.rng.randint(1, 12)
        found = self.ask(f"{id}@{version}")
        if (id, version) in self.model.source:
            self.must_be(found, self.model.source[id, version])
        else:
            assert isinstance(found, ServerError)

    def ask_pinned(self) -> None:
        if not self.model.source:
            return
        id, version = self.rng.choice(sorted(self.model.source))
        pinned = Selection(mode="single", experts=(Chosen(id=id, version=version, weight=1.0),))
        self.must_be(self.ask("auto", pinned), self.model.source[id, version])

    def route(self) -> None:
        found = self.ask("auto")
        assert isinstance(found, Outcome)
        chosen = {(e.id, e.version) for e in found.trace.selection.experts}
        assert chosen <= {(id, v) for id, v in self.model.current.items()}

    def must_be(self, found: object, source: str) -> None:
        torch.testing.assert_close(vector(found), self.expected[source], atol=1e-5, rtol=0)

    def step(self) -> None:
        actions: tuple[Callable[[], None], ...] = (
            self.add, self.replace, self.replace, self.roll_back, self.remove, self.refresh,
            self.ask_current, self.ask_current, self.ask_version, self.ask_pinned, self.route,
        )  # fmt: skip
        self.rng.choice(actions)()
        library = self.engine.library
        assert dict(library.bad) == {}
        assert {id: e.manifest.version for id, e in library.entries.items()} == self.model.current
        for id in IDS:
            found = [e.manifest.version for e in library.snapshot.versions(id)]
            assert found == self.model.versions(id)


def vector(found: object) -> torch.Tensor:
    assert isinstance(found, Outcome), found
    assert found.answer is not None
    return torch.tensor(found.answer.embedding)


@pytest.fixture
def world(tmp_path: Path, written: Path) -> Callable[[int], World]:
    def make(seed: int) -> World:
        root = tmp_path / f"library{seed}"
        root.mkdir()
        engine = build_engine(Settings(backbone="tiny-random", library=root, threads=1))
        # About two experts on the device and one more on the host: nearly every question loads.
        engine.tiers.device.budget, engine.tiers.host.budget = 60_000, 90_000
        return World(engine, written, seed)

    return make


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_in_whatever_order_the_model_holds(world, seed):
    living = world(seed)
    for _ in range(40):
        living.step()
    assert all(found == [] for found in living.engine.library.verify().values())


@pytest.mark.slow
def test_a_thousand_rounds(world):
    living = world(1000)
    for _ in range(1000):
        living.step()
    assert all(found == [] for found in living.engine.library.verify().values())


def test_questions_asked_meanwhile_get_one_version_or_the_other(world):
    """Three threads ask while one changes the library: every answer is some source's own."""
    living = world(77)
    library, wrong, stop = living.engine.library, [], threading.Event()
    living.put("a", "mood", replace=True)
    known = torch.stack(list(living.expected.values()))
    lock = threading.Lock()  # the engine is single-threaded: the service feeds it one batch at once

    def ask() -> None:
        while not stop.is_set():
            with lock:
                found = living.ask("a")
            if isinstance(found, Outcome):
                if float((known - vector(found)).abs().amax(dim=1).min()) > 1e-5:
                    wrong.append("a mixture of two versions")
            elif not isinstance(found, UnknownExpert | ServerError):
                wrong.append(repr(found))

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    for _ in range(25):
        living.put("a", living.rng.choice(SOURCES), replace=True)
        if living.rng.random() < 0.2:
            library.remove("a")
        if living.rng.random() < 0.3 and (versions := library.snapshot.versions("a")):
            library.roll_back("a", versions[0].manifest.version)
    stop.set()
    for thread in asking:
        thread.join()
    assert wrong == []
