"""kill -9 while the library changes over HTTP: it is the old one or the new, and serves."""

from __future__ import annotations

import random
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from experts.library import Library
from experts.snapshot import Snapshot
from tests.faults.ledger import Ledger
from tests.faults.material import ALIAS, decision, opened
from tests.faults.servers import Server, serving

Ask = tuple[str, str, dict[str, object] | None]
ADDED = ("add", "remove")
OTHERS = ("replace", "roll back", "set an alias", "move an alias", "remove an alias")


def changes(adapters: Path) -> dict[str, Ask]:
    """Each change of a library that a client can ask for: method, path, body."""
    return {
        "add": ("POST", "/v1/experts", {"id": "flight", "source": str(adapters / "flight")}),
        "replace": ("PUT", "/v1/experts/mood", {"source": str(adapters / "mood")}),
        "remove": ("DELETE", "/v1/experts/weather", None),
        "roll back": ("POST", "/v1/experts/mood/rollback", {"version": 1}),
        "set an alias": ("PUT", "/v1/aliases/other", {"expert": "weather"}),
        "move an alias": ("PUT", f"/v1/aliases/{ALIAS}", {"expert": "mood@1"}),
        "remove an alias": ("DELETE", f"/v1/aliases/{ALIAS}", None),
    }


def ask(server: Server, change: Ask) -> None:
    method, path, body = change
    with suppress(httpx.TransportError):  # it was killed
        answer = httpx.request(method, server.address + path, json=body, timeout=30)
        assert answer.is_success, answer.text


def state(snapshot: Snapshot) -> tuple[object, ...]:
    versions = {id: [e.ref for e in snapshot.versions(id)] for id in snapshot.entries}
    return snapshot.generation, versions, dict(snapshot.bad), dict(snapshot.aliases)


def sound(library: Library) -> bool:
    """Whether every byte is the one that was written, and nothing else lies there."""
    names = {p.name for p in library.root.iterdir() if p.is_dir()} - {".versions"}
    return names == {*library.entries} and not any(library.verify().values())


def served(folder: Path, library: Path) -> tuple[str, int]:
    """The generation that a new server tells, and how it answers."""
    with serving(folder, "--library", str(library)) as server:
        listed = httpx.get(f"{server.address}/v1/experts").json()
        answer = httpx.post(f"{server.address}/v1/decisions", json=decision(), timeout=30)
        return listed["generation"], answer.status_code


@pytest.mark.parametrize(
    ("rounds", "names"),
    [(2, ADDED), (5, OTHERS), pytest.param(198, ADDED, marks=pytest.mark.slow),
     pytest.param(75, OTHERS, marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_killed_server_leaves_the_old_library_or_the_new(
    rounds: int, names: tuple[str, ...], start_library: Path, adapters: Path, tmp_path: Path,
    chance: random.Random, ledger: Ledger,
) -> None:  # fmt: skip
    asked = [(name, changes(adapters)[name]) for name in names]
    before = state(opened(start_library).snapshot)
    after: dict[str, tuple[tuple[object, ...], float]] = {}
    what = "an add or a remove" if names == ADDED else "another change of the library"
    with ledger.fault(f"kill -9 during {what}") as fault:
        for turn in range(rounds):
            name, change = asked[turn % len(asked)]
            if name not in after:
                after[name] = whole(tmp_path / f"whole-{turn}", start_library, adapters, change)
            end, seconds = after[name]
            root = shutil.copytree(start_library, tmp_path / f"killed-{turn}" / "library")
            delay = chance.uniform(0, 1.2 * seconds)
            killed(root, adapters, change, delay)
            found = opened(root)
            now = state(found.snapshot)
            print(f"{turn}: {name}, killed after {delay * 1e3:.1f} ms")
            kept = now in (before, end) and sound(found)
            answered = served(root.parent, root) == (found.generation, 200)
            ending = "the old library" if now == before else "the new library"
            fault.round(ending, lost=not (kept and answered))
            shutil.rmtree(root.parent)


def whole(
    folder: Path, start: Path, adapters: Path, change: Ask
) -> tuple[tuple[object, ...], float]:
    """The library after a change that nobody disturbs, and the seconds it takes."""
    root = shutil.copytree(start, folder / "library")
    with serving(folder, "--library", str(root), "--adapter-root", str(adapters)) as server:
        began = time.monotonic()
        ask(server, change)
        seconds = time.monotonic() - began
    return state(opened(root).snapshot), seconds


def killed(root: Path, adapters: Path, change: Ask, delay: float) -> None:
    """Ask for a change, and kill the server so many seconds later."""
    options = ("--library", str(root), "--adapter-root", str(adapters))
    with serving(root.parent, *options) as server:
        asking = threading.Thread(target=ask, args=(server, change))
        asking.start()
        time.sleep(delay)
        server.kill()
        asking.join()
