"""Two server processes on one library: what is changed at one is so at the other."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from experts.atomic import LOCK
from experts.library import Library
from tests.server.cli.replicas import SCAN_SECONDS, Place, Replica, make_place, replicas, until

MARGIN = 2.0
"""Seconds that a look and a request may take on a busy machine."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def both(place: Place) -> Iterator[list[Replica]]:
    with replicas(place) as started:
        yield started


@pytest.mark.parametrize("here", [0, 1])
def test_an_expert_comes_changes_and_goes_at_both(both, place, here):
    one, other, id = both[here], both[1 - here], f"guest-{here}"
    body = {"source": place.source("one"), "id": id, "tags": ["air"]}
    assert one.client.post("/v1/experts", json=body).status_code == 201
    assert until(lambda: id in other.ids) < SCAN_SECONDS + MARGIN
    assert other.get(f"/v1/experts/{id}")["tags"] == ["air"]
    asked = {"model": id, "input": "A text.", "questions": [{"type": "choice"}]}
    assert other.client.post("/v1/decisions", json=asked).status_code == 200
    assert one.generation == other.generation

    newer = {"source": place.source("two"), "tags": ["sea"]}
    assert other.client.put(f"/v1/experts/{id}", json=newer).status_code == 200
    until(lambda: one.get(f"/v1/experts/{id}")["versions"] == [1, 2], SCAN_SECONDS + MARGIN)
    assert one.get(f"/v1/experts/{id}")["tags"] == ["sea"]
    pinned = {"expert": f"{id}@1"}
    assert one.client.put("/v1/aliases/visitor", json=pinned).status_code == 200
    until(lambda: other.get("/v1/aliases")["data"], SCAN_SECONDS + MARGIN)
    assert other.client.post("/v1/decisions", json={**asked, "model": "visitor"}).is_success
    back = {"version": 1}
    assert other.client.post(f"/v1/experts/{id}/rollback", json=back).status_code == 200
    until(lambda: one.get(f"/v1/experts/{id}")["version"] == 1, SCAN_SECONDS + MARGIN)
    until(lambda: one.generation == other.generation, SCAN_SECONDS + MARGIN)

    refused = other.client.delete(f"/v1/experts/{id}")
    assert refused.status_code == 409, "an alias stands for it"
    assert other.client.delete("/v1/aliases/visitor").status_code == 204
    assert one.client.delete(f"/v1/experts/{id}").status_code == 204
    until(lambda: id not in other.ids, SCAN_SECONDS + MARGIN)
    assert other.client.post("/v1/decisions", json=asked).status_code == 404
    until(lambda: one.generation == other.generation, SCAN_SECONDS + MARGIN)


def test_a_change_of_another_is_in_force_before_a_look_says_so(both, place):
    """Changes go by what lies on disk, so two at one id cannot both be the first."""
    one, other = both
    body = {"source": place.source("one"), "id": "guest"}
    answers = [each.client.post("/v1/experts", json=body).status_code for each in (one, other)]
    assert answers == [201, 409]
    removed = [each.client.delete("/v1/experts/guest").status_code for each in (one, one)]
    assert removed == [204, 404]
    until(lambda: one.generation == other.generation)


def test_one_that_is_killed_while_it_writes_lets_the_other_go_on(place, both):
    """Stopped by hand in the middle of a change, it holds the lock; killed, it does not."""
    victim, other = both[0], both[1]
    body = {"source": place.source("two"), "tags": ["busy"]}
    over = threading.Event()

    def churn() -> None:
        with suppress(Exception):
            while not over.is_set():
                victim.client.put("/v1/experts/busy", json=body)

    thread = threading.Thread(target=churn)
    thread.start()
    until(lambda: stopped_in_a_change(victim, place.library))
    asked = {"model": "mood", "input": "A text.", "questions": [{"type": "choice"}]}
    late: list[int] = []
    add = {"source": place.source("one"), "id": "late"}
    waiting = threading.Thread(
        target=lambda: late.append(other.client.post("/v1/experts", json=add).status_code)
    )
    waiting.start()
    time.sleep(0.5)
    assert late == [], "the lock is held"
    assert other.client.post("/v1/decisions", json=asked).status_code == 200, "it answers on"
    over.set()
    victim.kill()
    waiting.join(10)
    assert late == [201]
    thread.join(10)
    assert not thread.is_alive()
    assert other.client.post("/v1/experts/scan").is_success
    assert other.get("/v1/experts")["bad"] == []
    require_whole(place.library, other.generation)


def stopped_in_a_change(replica: Replica, library: Path) -> bool:
    """Stop a server, and have it go on unless it holds the library's lock."""
    time.sleep(random.uniform(0.0, 0.05))
    replica.process.send_signal(signal.SIGSTOP)
    handle = os.open(library, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(0.05)  # it may have been the other's look
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            replica.process.send_signal(signal.SIGCONT)
            return False
        return True
    finally:
        os.close(handle)
    replica.process.send_signal(signal.SIGCONT)
    return False


def require_whole(root: Path, generation: str) -> None:
    """A third process that opens the library sees the same, every file of it sound."""
    library = Library.open(root)
    assert library.generation == generation
    assert {name: found for name, found in library.verify().items() if found} == {}
    hidden = {p.name for p in root.iterdir() if p.name.startswith(".")}
    assert hidden <= {LOCK, ".versions", ".embeddings"}


@pytest.mark.slow  # a storm of half a minute
def test_changes_through_both_at_one_time_leave_one_whole_library(tmp_path):
    place = make_place(tmp_path)
    with replicas(place) as both:
        statuses: list[int] = []

        def storm(seed: int) -> None:
            rng = random.Random(seed)
            end = time.monotonic() + 20
            while time.monotonic() < end:
                id, alias = f"e{rng.randrange(3)}", f"/v1/aliases/a{rng.randrange(3)}"
                source = {"source": place.source(rng.choice(("one", "two")))}
                method, path, body = rng.choice((
                    ("POST", "/v1/experts", {"id": id, **source}),
                    ("PUT", f"/v1/experts/{id}", source),
                    ("DELETE", f"/v1/experts/{id}", None),
                    ("POST", f"/v1/experts/{id}/rollback", {"version": 1}),
                    ("PUT", alias, {"expert": id}),
                    ("DELETE", alias, None),
                ))  # fmt: skip
                answer = rng.choice(both).client.request(method, path, json=body)
                statuses.append(answer.status_code)

        threads = [threading.Thread(target=storm, args=(seed,)) for seed in range(6)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert set(statuses) <= {200, 201, 204, 404, 409}, sorted(set(statuses))
        assert sum(status < 300 for status in statuses) > 50
        generations = set()
        for each in both:
            assert each.client.post("/v1/experts/scan").is_success
            generations.add(each.generation)
            assert each.get("/v1/experts")["bad"] == []
        assert len(generations) == 1
        require_whole(place.library, generations.pop())
