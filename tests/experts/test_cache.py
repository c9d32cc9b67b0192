"""The cache against a plain model of what an LRU cache with pins must do."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experts.cache import ExpertCache
from experts.errors import CorruptExpert, SystemExhausted, UnknownExpert
from experts.weights import ExpertWeights

UNIT = 8  # bytes of one float64


def expert(id: str, size: int = 1) -> ExpertWeights:
    """An expert of `size` units."""
    return ExpertWeights(
        id, "lora", ("lora",), {"s": {"A": torch.zeros(size, dtype=torch.float64)}}
    )


def sized(id: str) -> ExpertWeights:
    """An expert as large as the last digit of its id says."""
    return expert(id, int(id[-1]))


MakeCache = Callable[..., ExpertCache[ExpertWeights]]


@pytest.fixture
def make_cache() -> Iterator[MakeCache]:
    """Caches that are closed after the test."""
    made: list[ExpertCache[ExpertWeights]] = []

    def make(load: Callable[[str], ExpertWeights] = sized, units: int = 6, **more) -> ExpertCache:
        made.append(ExpertCache(load, units * UNIT, **more))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


def test_a_second_look_is_a_hit(make_cache: MakeCache) -> None:
    seconds: list[tuple[str, float]] = []
    cache = make_cache(on_load=lambda id, took: seconds.append((id, took)))
    with cache.pin(["a1", "b2", "a1"]) as lease:
        assert (lease.hits, lease.misses) == (0, 2)
        first = lease.experts["a1"]
    with cache.pin(["a1"]) as lease:
        assert (lease.hits, lease.misses) == (1, 0)
        assert lease.experts["a1"] is first
    stats = cache.stats
    assert (stats.lookups, stats.hits, stats.evictions) == (3, 1, 0)
    assert (stats.bytes, stats.experts) == (3 * UNIT, 2)
    assert sorted(id for id, _ in seconds) == ["a1", "b2"]
    assert all(took >= 0 for _, took in seconds)


def test_the_oldest_goes_first(make_cache: MakeCache) -> None:
    cache = make_cache(units=6)
    for id in ("a2", "b2", "c2", "a2", "d2"):
        with cache.pin([id]):
            pass
    with cache.pin(["a2", "c2", "d2"]) as lease:
        assert lease.hits == 3
    assert cache.stats.evictions == 1


def test_pinned_experts_stay_even_over_the_budget(make_cache: MakeCache) -> None:
    cache = make_cache(units=4)
    with cache.pin(["a3"]), cache.pin(["b3", "c9"]) as lease:
        assert set(lease.experts) == {"b3", "c9"}
        assert cache.stats.bytes == 15 * UNIT
        with cache.pin(["a3"]) as again:
            assert again.hits == 1
    assert cache.stats.bytes <= 4 * UNIT


def test_failures_are_told_and_not_kept(make_cache: MakeCache) -> None:
    errors = {"bad": CorruptExpert("broken"), "gone": UnknownExpert("not there")}
    calls: Counter[str] = Counter()

    def load(id: str) -> ExpertWeights:
        calls[id] += 1
        if id in errors:
            raise errors[id]
        return expert(id)

    cache = make_cache(load)
    for _ in range(2):
        with cache.pin(["good", "bad", "gone"]) as lease:
            assert list(lease.experts) == ["good"]
            assert lease.failed == errors
    assert calls == {"good": 1, "bad": 2, "gone": 2}
    assert (cache.stats.bytes, cache.stats.experts) == (UNIT, 1)


def test_a_load_that_no_thread_can_be_started_for_fails(
    make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waited for it would wait for ever."""
    cache = make_cache()
    start = threading.Thread.start

    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    cache.prefetch(["a1"])
    with cache.pin(["b1"]) as lease:
        assert isinstance(lease.failed["b1"], SystemExhausted)
    monkeypatch.setattr(threading.Thread, "start", start)
    with cache.pin(["a1", "b1"]) as lease:
        assert list(lease.experts) == ["a1", "b1"]


def test_an_unforeseen_error_is_raised_and_unpins(make_cache: MakeCache) -> None:
    def load(id: str) -> ExpertWeights:
        if id == "z1":
            raise ZeroDivisionError
        return sized(id)

    cache = make_cache(load, units=1)
    with pytest.raises(ZeroDivisionError), cache.pin(["a9", "z1"]):
        pass
    assert cache.stats.bytes == 0


def test_a_dropped_expert_is_freed_with_its_last_lease(make_cache: MakeCache) -> None:
    calls: Counter[str] = Counter()

    def load(id: str) -> ExpertWeights:
        calls[id] += 1
        return sized(id)

    cache = make_cache(load)
    with cache.pin(["a2"]) as old:
        cache.drop("a2")
        assert cache.stats.bytes == 2 * UNIT
        with cache.pin(["a2"]) as fresh:
            assert fresh.misses == 1
            assert fresh.experts["a2"] is not old.experts["a2"]
            assert cache.stats.bytes == 4 * UNIT
    assert cache.stats.bytes == 2 * UNIT
    cache.drop("a2")
    cache.drop("a2")
    assert cache.stats.bytes == 0
    assert calls["a2"] == 2


def test_an_expert_dropped_while_it_loads_is_not_kept(make_cache: MakeCache) -> None:
    started, go = threading.Event(), threading.Event()

    def load(id: str) -> ExpertWeights:
        started.set()
        go.wait(5)
        return sized(id)

    cache = make_cache(load)
    held: list[int] = []

    def use() -> None:
        with cache.pin(["a2"]) as lease:
            held.append(len(lease.experts))

    thread = threading.Thread(target=use)
    thread.start()
    assert started.wait(5)
    cache.drop("a2")
    go.set()
    thread.join(5)
    assert not thread.is_alive()
    assert held == [1]
    assert (cache.stats.bytes, cache.stats.experts) == (0, 0)


def test_releasing_twice_unpins_once(make_cache: MakeCache) -> None:
    cache = make_cache(units=1)
    with cache.pin(["a5"]) as first:
        with cache.pin(["a5"]) as second:
            second.release()
            second.release()
        assert cache.stats.bytes == 5 * UNIT
        first.release()
    assert cache.stats.bytes == 0


def test_several_experts_load_at_the_same_time(make_cache: MakeCache) -> None:
    together = threading.Barrier(2)

    def load(id: str) -> ExpertWeights:
        together.wait(5)
        return sized(id)

    with make_cache(load, workers=2).pin(["a1", "b1"]) as lease:
        assert len(lease.experts) == 2


def test_one_load_serves_all_who_wait_for_it(make_cache: MakeCache) -> None:
    go = threading.Event()
    calls: Counter[str] = Counter()

    def load(id: str) -> ExpertWeights:
        calls[id] += 1
        go.wait(5)
        return sized(id)

    cache = make_cache(load)
    cache.prefetch(["a2"])
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(lambda: cache.hold(["a2"]).wait()) for _ in range(3)]
        cache.prefetch(["a2"])
        assert not cache.holds("a2")
        go.set()
        leases = [future.result(5) for future in waiting]
    assert all(lease.experts["a2"] is leases[0].experts["a2"] for lease in leases)
    assert calls["a2"] == 1
    cache.budget = 0
    for lease in leases:
        assert cache.stats.bytes == 2 * UNIT
        lease.release()
    assert cache.stats.bytes == 0


def test_what_is_prefetched_is_found_and_not_counted_as_asked_for(make_cache: MakeCache) -> None:
    cache = make_cache()
    cache.prefetch(["a1"])
    wait_for(lambda: cache.holds("a1"))
    assert cache.stats.lookups == 0
    with cache.pin(["a1"]) as lease:
        assert lease.hits == 1


def test_a_prefetch_that_fails_is_tried_again_by_who_needs_it(make_cache: MakeCache) -> None:
    errors = iter([CorruptExpert("half written")])

    def load(id: str) -> ExpertWeights:
        for error in errors:
            raise error
        return sized(id)

    cache = make_cache(load)
    cache.prefetch(["a1"])
    wait_for(lambda: not cache.stats.experts)
    with cache.pin(["a1"]) as lease:
        assert list(lease.experts) == ["a1"]


def test_a_cold_expert_gets_its_place_among_pinned_ones(make_cache: MakeCache) -> None:
    cache = make_cache(units=3)
    with cache.pin(["a1", "b1", "c1"]), cache.pin(["d1"]) as lease:
        assert list(lease.experts) == ["d1"]
    assert cache.stats.bytes == 3 * UNIT


def test_there_is_room_for_one_more_of_the_usual_size(make_cache: MakeCache) -> None:
    cache = make_cache(units=6)
    found = []
    for id in ("a2", "b2", "c2"):
        found.append(cache.has_room)
        with cache.pin([id]):
            pass
    assert (found, cache.has_room) == ([True, True, True], False)


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.005)
    pytest.fail("it did not happen in time")


IDS = ("a1", "b2", "c3", "d2", "e1", "f9")
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("pin"), st.lists(st.sampled_from(IDS), min_size=1, max_size=3)),
        st.tuples(st.just("release"), st.integers(0, 5)),
        st.tuples(st.just("drop"), st.sampled_from(IDS)),
        st.tuples(st.just("prefetch"), st.sampled_from(IDS)),
    ),
    max_size=40,
)


class Model:
    """What the cache must do, written as plainly as can be."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.held: OrderedDict[str, object] = OrderedDict()  # id -> one loaded copy
        self.pins: Counter[object] = Counter()
        self.sizes: dict[object, int] = {}

    def pin(self, ids: list[str]) -> tuple[list[object], int]:
        hits = sum(id in self.held for id in dict.fromkeys(ids))
        for id in dict.fromkeys(ids):
            if id not in self.held:
                self.held[id] = object()
                self.sizes[self.held[id]] = int(id[-1])
            self.held.move_to_end(id)
            self.pins[self.held[id]] += 1
        copies = [self.held[id] for id in dict.fromkeys(ids)]
        self.evict()
        return copies, hits

    def prefetch(self, id: str) -> None:
        if id not in self.held:
            self.held[id] = object()
            self.sizes[self.held[id]] = int(id[-1])
            self.evict()

    def release(self, copies: list[object]) -> None:
        for copy in copies:
            self.pins[copy] -= 1
        self.evict()

    def drop(self, id: str) -> None:
        self.held.pop(id, None)

    @property
    def bytes(self) -> int:
        live = set(self.held.values()) | {copy for copy, pins in self.pins.items() if pins}
        return sum(self.sizes[copy] for copy in live)

    def evict(self) -> None:
        for id, copy in list(self.held.items()):
            if self.bytes > self.budget and not self.pins[copy]:
                del self.held[id]


@given(ACTIONS, st.integers(0, 9))
def test_the_cache_does_what_the_model_does(actions: list[tuple[str, object]], units: int) -> None:
    cache, model = ExpertCache(sized, units * UNIT), Model(units)
    leases: list[tuple[object, list[object]]] = []
    try:
        for action, what in actions:
            if action == "pin":
                copies, hits = model.pin(what)
                context = cache.pin(what)
                assert context.__enter__().hits == hits
                leases.append((context, copies))
            elif action == "release" and leases:
                context, copies = leases.pop(what % len(leases))
                context.__exit__(None, None, None)
                model.release(copies)
            elif action == "drop":
                cache.drop(what)
                model.drop(what)
            elif action == "prefetch":
                model.prefetch(what)
                cache.prefetch([what])
                now = (model.bytes * UNIT, len(model.held))
                wait_for(lambda: (cache.stats.bytes, cache.stats.experts) == now)  # noqa: B023
            assert cache.stats.bytes == model.bytes * UNIT
            assert cache.stats.experts == len(model.held)
    finally:
        for context, _ in leases:
            context.__exit__(None, None, None)
        cache.close()
    assert cache.stats.bytes <= cache.budget


@pytest.mark.parametrize("seed", range(3))
def test_many_threads_share_one_cache(make_cache: MakeCache, seed: int) -> None:
    loading: Counter[str] = Counter()
    wrong: list[str] = []
    guard = threading.Lock()

    def load(id: str) -> ExpertWeights:
        with guard:
            loading[id] += 1
            if loading[id] > 1:
                wrong.append(f"{id} was loaded twice at once")
        time.sleep(0.0005)
        with guard:
            loading[id] -= 1
        return sized(id)

    cache = make_cache(load, units=5, workers=4)

    def use(worker: int) -> None:
        draw = random.Random(seed * 100 + worker)
        for _ in range(60):
            ids = draw.sample(IDS, draw.randint(1, 3))
            with cache.pin(ids) as lease:
                held = dict(lease.experts)
                time.sleep(draw.uniform(0, 0.001))
                if cache.stats.bytes < sum(e.nbytes for e in held.values()):
                    wrong.append("pinned bytes are not counted")
                with cache.pin(ids) as again:
                    if again.misses or any(again.experts[i] is not held[i] for i in ids):
                        wrong.append("a pinned expert was evicted")

    threads = [threading.Thread(target=use, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert wrong == []
    stats = cache.stats
    assert stats.bytes <= cache.budget
    assert stats.evictions > 0
    assert 6 * 60 <= stats.hits < stats.lookups
