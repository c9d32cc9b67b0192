"""A library that changes while it answers, against a plain model of what must hold.

Every round does something at random: add, replace, roll back, remove, look at the folder, or ask;
or another process does, perhaps killed at any moment, or an operator by hand. The model is a
dictionary; what an expert answers depends on its source alone, so every answer can be told from
every other. Sources are experts of ours, and adapters that PEFT made in many shapes.
"""

from __future__ import annotations

import copy
import random
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from experts.atomic import LOCK
from experts.entries import CONFIG, MANIFEST, ROUTING, WEIGHTS
from experts.errors import DuplicateExpert, ExpertError, UnknownExpert
from experts.library import Library
from experts.versions import FOLDER, KEPT
from routers.types import Chosen, Selection
from server.build import build_engine
from server.engine.messages import Outcome, RoutingOptions, Sample
from server.engine.run import Engine
from server.errors import ServerError
from server.settings import Settings
from tests.experts.killing import run_killed
from tests.experts.peft_material import SERVED, make, store_as

OURS = ("mood", "weather", "flight", "quiz")
SHAPES = ("rank 1", "rank 16", "rank-stabilised, every linear layer", "attention only")
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

    def next(self, id: str) -> int:
        """The version that a process gives which knows no more than what lies there."""
        return 1 + max(self.versions(id), default=0)

    def put(self, id: str, version: int, source: str, *, by_another: bool = False) -> None:
        if not by_another:  # it cannot know which names were used and given up
            assert version > self.highest.get(id, 0), "a version names one set of tensors for good"
        self.highest[id] = max(version, self.highest.get(id, 0))
        self.current[id] = version
        self.source[id, version] = source
        former = [v for v in self.versions(id) if v != version]
        for old in former[:-KEPT]:
            del self.source[id, old]

    def state(self) -> object:
        return dict(sorted(self.current.items())), self.source

    def remove(self, id: str) -> None:
        for version in self.versions(id):
            del self.source[id, version]
        del self.current[id]


class World:
    """An engine over a folder, its model, and the expected vector of each source."""

    def __init__(self, engine: Engine, sources: Sequence[Path], seed: int) -> None:
        self.engine, self.root = engine, engine.library.root
        self.sources = {folder.name: folder for folder in sources}
        self.rng = random.Random(seed)
        self.model = Model()
        self.names = set[str]()
        self.source_of: dict[str, str] = {}
        self.expected = {name: self._alone(name) for name in self.sources}
        with engine.changing():
            engine.library.remove("probe")

    def _alone(self, source: str) -> torch.Tensor:
        self.put("probe", source, replace=True)
        files = self.engine.library.get("probe").manifest.files
        self.source_of[files[WEIGHTS]] = source
        return vector(self.ask("probe"))

    def put(self, id: str, source: str, *, replace: bool) -> int:
        with self.engine.changing():
            return put(self.engine.library, self.engine, id, self.sources[source], replace)

    def any_id(self) -> str:
        return self.rng.choice(IDS)

    def any_source(self) -> str:
        return self.rng.choice(sorted(self.sources))

    def ask(self, model: str, selection: Selection | None = None) -> object:
        options = RoutingOptions(selection=selection, trace="none")
        (result,) = self.engine.run([Sample(TEXT, None, model, options)])
        return result

    # What a round may do.

    def add(self) -> None:
        id, source = self.any_id(), self.any_source()
        if id in self.model.current:
            with pytest.raises(DuplicateExpert):
                self.put(id, source, replace=False)
        else:
            self.model.put(id, self.put(id, source, replace=False), source)

    def replace(self) -> None:
        id, source = self.any_id(), self.any_source()
        self.model.put(id, self.put(id, source, replace=True), source)

    def roll_back(self) -> None:
        id = self.any_id()
        if not (versions := self.model.versions(id)):
            with pytest.raises(UnknownExpert):
                self.engine.library.roll_back(id, 1)
            return
        version = self.rng.choice(versions)
        with self.engine.changing():
            self.engine.library.roll_back(id, version)
        self.model.current[id] = version

    def remove(self) -> None:
        id = self.any_id()
        if id not in self.model.current:
            with pytest.raises(UnknownExpert):
                self.engine.library.remove(id)
            return
        with self.engine.changing():
            self.engine.library.remove(id)
        self.model.remove(id)

    def look(self) -> None:
        generation = self.engine.library.generation
        found = self.engine.scan(again=self.rng.random() < 0.5)
        assert (found.added, found.replaced, found.removed, found.bad) == ((), (), (), ())
        assert found.generation == generation == elsewhere(self.engine).generation

    # What others may do beside it.

    def another(self) -> None:
        """One change by another process, which lives, or is killed at any moment."""
        after = copy.deepcopy(self.model)
        change = self.rng.choice(
            (self._add_there, self._replace_there, self._roll_back_there, self._remove_there)
        )(after)
        if change is None:
            return
        killed = self.rng.choice((
            {}, {"at": self.rng.randint(0, 30)}, {"after": self.rng.uniform(0, 0.02)},
        ))  # fmt: skip
        lived = run_killed(lambda: change(elsewhere(self.engine)), **killed)
        id = self.any_id()
        found = self.ask(id) if self.rng.random() < 0.5 else None
        self.engine.scan()
        seen = self.seen()
        if seen == after.state():
            before, self.model = self.model, after
        else:
            assert not lived
            assert seen == self.model.state(), "neither as before nor as after"
            before = self.model
        if isinstance(found, Outcome):  # requests go on meanwhile, by what was or by what is
            known = [m.source[id, m.current[id]] for m in (before, after) if id in m.current]
            assert any(self.is_by(found, source) for source in known)

    def _add_there(self, after: Model) -> Callable[[Library], object] | None:
        id, source = self.any_id(), self.any_source()
        if id in after.current:
            return None
        after.put(id, after.next(id), source, by_another=True)
        folder = self.sources[source]
        return lambda library: put(library, self.engine, id, folder, False)

    def _replace_there(self, after: Model) -> Callable[[Library], object] | None:
        id, source = self.any_id(), self.any_source()
        after.put(id, after.next(id), source, by_another=True)
        folder = self.sources[source]
        return lambda library: put(library, self.engine, id, folder, True)

    def _roll_back_there(self, after: Model) -> Callable[[Library], object] | None:
        id = self.any_id()
        if not (versions := after.versions(id)):
            return None
        version = after.current[id] = self.rng.choice(versions)
        return lambda library: library.roll_back(id, version)

    def _remove_there(self, after: Model) -> Callable[[Library], object] | None:
        id = self.any_id()
        if id not in after.current:
            return None
        after.remove(id)
        return lambda library: library.remove(id)

    def delete_by_hand(self) -> None:
        id = self.any_id()
        if id in self.model.current:
            shutil.rmtree(self.root / id)
            found = self.ask(id) if self.rng.random() < 0.5 else None
            assert self.engine.scan().removed == (id,)
            if isinstance(found, Outcome):  # it was in memory
                assert self.is_by(found, self.model.source[id, self.model.current[id]])
            self.model.remove(id)

    def copy_by_hand(self) -> None:
        """File after file: bad while it is not whole."""
        id, source = self.any_id(), self.rng.choice(OURS)
        if id in self.model.current:
            return
        (self.root / id).mkdir()
        names = [MANIFEST, CONFIG, WEIGHTS, ROUTING]
        self.rng.shuffle(names)
        for name in names:
            data = (self.sources[source] / name).read_bytes()
            said = f'"id": "{source}"'.encode()
            (self.root / id / name).write_bytes(data.replace(said, f'"id": "{id}"'.encode()))
            if name != names[-1]:
                self.engine.scan()
                assert id not in self.engine.library.entries
                assert set(self.engine.library.bad) <= {id}
                assert isinstance(self.ask(id), ExpertError | ServerError)
        assert self.engine.scan().added == (id,)
        self.model.put(id, 1, source, by_another=True)

    def ask_current(self) -> None:
        id = self.any_id()
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

    def is_by(self, found: object, source: str) -> bool:
        return torch.allclose(vector(found), self.expected[source], atol=1e-5, rtol=0)

    def seen(self) -> object:
        """What the library says, in the words of `Model.state`."""
        snapshot = self.engine.library.snapshot
        assert dict(snapshot.bad) == {}
        current = {id: e.manifest.version for id, e in snapshot.entries.items()}
        found = [e for id in IDS for e in snapshot.versions(id)]
        return current, {
            (e.id, e.manifest.version): self.source_of[e.manifest.files[WEIGHTS]] for e in found
        }

    def step(self) -> None:
        here = (
            self.add, self.replace, self.replace, self.roll_back, self.remove, self.look,
            self.ask_current, self.ask_current, self.ask_version, self.ask_pinned, self.route,
        )  # fmt: skip
        beside = (self.another, self.another, self.another, self.delete_by_hand, self.copy_by_hand)
        self.rng.choice((*here, *beside))()
        assert self.seen() == self.model.state()
        self.nothing_leaks()

    def nothing_leaks(self) -> None:
        """Neither folders on disk nor tensors in memory of what is not there any more."""
        folders = {p.name for p in self.root.iterdir()}
        assert folders - {FOLDER, LOCK} == set(self.model.current)
        refs = {f"{id}@{version}" for id, version in self.model.source}
        if FOLDER in folders:
            assert {p.name for p in (self.root / FOLDER).iterdir()} <= refs
        self.names |= refs
        assert [n for n in self.names - refs if self.engine.tiers.where(n) != "disk"] == []


def put(library: Library, engine: Engine, id: str, source: Path, replace: bool) -> int:
    entry = library.add(
        source, id, sites=engine.backbone.sites, roots=(source,), replace=replace
    )  # fmt: skip
    return entry.manifest.version


def elsewhere(engine: Engine) -> Library:
    """The same library, as another process has it."""
    backbone = engine.backbone
    return Library.open(
        engine.library.root, fingerprint=backbone.fingerprint, backbone_id=backbone.id
    )


def vector(found: object) -> torch.Tensor:
    assert isinstance(found, Outcome), found
    assert found.answer is not None
    return torch.tensor(found.answer.embedding)


@pytest.fixture
def world(tmp_path: Path, written: Path) -> Callable[..., World]:
    def build(seed: int, shapes: Sequence[str] = SHAPES) -> World:
        root = tmp_path / f"library{seed}"
        root.mkdir()
        sources = [written / id for id in OURS]
        for number, shape in enumerate(shapes):
            sources.append(tmp_path / "made" / f"peft-{number}")
            make(sources[-1], SERVED[shape], seed=number)
            store_as(sources[-1], (torch.float32, torch.float16, torch.bfloat16)[number % 3])
        engine = build_engine(Settings(backbone="tiny-random", library=root, threads=1))
        engine.tiers.host.budget = 60_000  # about two experts: nearly every question loads again
        engine.tiers.device.budget = 60_000
        return World(engine, sources, seed)

    return build


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_in_whatever_order_the_model_holds(world, seed):
    living = world(seed)
    for _ in range(50):
        living.step()
    assert all(found == [] for found in living.engine.library.verify().values())


@pytest.mark.slow
def test_a_thousand_rounds(world):
    living = world(1000, tuple(SERVED))
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
        living.put("a", living.any_source(), replace=True)
        if living.rng.random() < 0.2:
            library.remove("a")
        if living.rng.random() < 0.3 and (versions := library.snapshot.versions("a")):
            library.roll_back("a", versions[0].manifest.version)
    stop.set()
    for thread in asking:
        thread.join()
    assert wrong == []
