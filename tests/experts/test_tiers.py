"""Experts through the tiers: where they are, what is loaded when, and that the numbers stay."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch

from experts.errors import CorruptExpert
from experts.host import HostExpert
from experts.tiers import Tiers
from experts.weights import ExpertWeights

REFS = [f"e{i}@1" for i in range(6)]
SIZE = 100  # numbers in one expert's tensor


def host_expert(ref: str) -> HostExpert:
    """Half precision on the host, with a scale."""
    tensor = torch.randn(SIZE, generator=torch.Generator().manual_seed(int(ref[1]))).half()
    expert = ExpertWeights(ref, "lora", ("lora",), {"s": {"A": tensor, "B": tensor}})
    return HostExpert.of(expert, {("s", "B"): 3.0}, {"gate": {"s": tensor}})


class Disk:
    """Reads that are counted; some fail."""

    def __init__(self) -> None:
        self.reads: Counter[str] = Counter()
        self.bad: set[str] = set()

    def read(self, ref: str) -> HostExpert:
        self.reads[ref] += 1
        if ref in self.bad:
            raise CorruptExpert("damaged")
        return host_expert(ref)


HOST = host_expert(REFS[0]).nbytes
DEVICE = host_expert(REFS[0]).materialise(torch.float32, "cpu").nbytes


@pytest.fixture
def disk() -> Disk:
    return Disk()


Make = Callable[..., Tiers]


@pytest.fixture
def make(disk: Disk) -> Iterator[Make]:
    """Tiers with room for so many experts each."""
    made: list[Tiers] = []

    def tiers(host: int = 4, device: int = 2, **more) -> Tiers:
        made.append(
            Tiers(
                disk.read, dtype=torch.float32, device="cpu",
                host_bytes=host * HOST, device_bytes=device * DEVICE, **more,
            )
        )  # fmt: skip
        return made[-1]

    yield tiers
    for one in made:
        one.close()


def use(tiers: Tiers, refs: Sequence[str]) -> dict[str, ExpertWeights]:
    with tiers.pin(refs) as lease:
        assert not lease.failed
        return lease.experts


def test_an_expert_is_half_as_large_on_the_host(make):
    assert DEVICE == 2 * HOST
    tiers = make()
    use(tiers, REFS[:1])
    assert (tiers.stats["host"].bytes, tiers.stats["device"].bytes) == (HOST, DEVICE)


def test_what_leaves_the_device_is_raised_again_from_the_host(make, disk):
    tiers = make(host=3, device=1)
    before = use(tiers, REFS[:1])[REFS[0]]
    use(tiers, REFS[1:3])
    assert [tiers.where(ref) for ref in REFS[:4]] == ["host", "host", "device", "disk"]
    again = use(tiers, REFS[:1])[REFS[0]]
    assert disk.reads[REFS[0]] == 1
    assert again is not before
    for part in ("A", "B"):
        assert torch.equal(again.sites["s"][part], before.sites["s"][part])
    assert torch.equal(before.sites["s"]["B"], before.sites["s"]["A"] * 3)
    assert torch.equal(before.vectors["gate"]["s"], before.sites["s"]["A"])


def test_what_leaves_both_is_read_again(make, disk):
    tiers = make(host=1, device=1)
    for ref in (REFS[0], REFS[1], REFS[0]):
        use(tiers, [ref])
    assert disk.reads[REFS[0]] == 2


def test_a_prefetch_brings_it_to_the_device(make, disk):
    tiers = make()
    tiers.prefetch(REFS[:2])
    use(tiers, REFS[:2])
    assert disk.reads == Counter(REFS[:2])


def test_a_failure_is_told_and_spares_the_others(make, disk):
    tiers = make()
    disk.bad.add(REFS[1])
    with tiers.pin(REFS[:3]) as lease:
        assert list(lease.experts) == [REFS[0], REFS[2]]
        assert lease.failed[REFS[1]].message == "damaged"
    assert tiers.where(REFS[1]) == "disk"


def test_numbers_that_overflow_the_compute_type_fail_there(make):
    huge = ExpertWeights("e0@1", "lora", ("lora",), {"s": {"A": torch.full((3,), 1e30)}})
    host = HostExpert.of(huge, {("s", "A"): 1e30}, {})
    with pytest.raises(CorruptExpert) as error:
        host.materialise(torch.float32, "cpu")
    assert error.value.details["tensors"] == ["s.A"]


def test_what_is_kept_stays_whatever_else_is_used(make):
    tiers = make(device=2)
    assert tiers.keep(REFS[:1]) == {}
    for ref in REFS[1:]:
        use(tiers, [ref])
    assert tiers.where(REFS[0]) == "device"
    tiers.keep(REFS[1:2])
    for ref in REFS[2:5]:
        use(tiers, [ref])
    assert (tiers.where(REFS[0]), tiers.where(REFS[1])) == ("disk", "device")


def test_keeping_what_cannot_be_loaded_is_told(make, disk):
    disk.bad.add(REFS[1])
    assert list(make().keep(REFS[:2])) == [REFS[1]]


def test_preloading_fills_the_device_and_then_the_host(make, disk):
    tiers = make(host=4, device=2)
    disk.bad.add(REFS[1])
    assert tiers.preload(REFS) == 4
    assert [tiers.where(ref) for ref in REFS] == [
        "device",
        "disk",
        "device",
        "host",
        "host",
        "disk",
    ]
    assert tiers.stats["device"].evictions == tiers.stats["host"].evictions == 0


def test_dropping_frees_every_tensor_in_both_tiers(make):
    tiers = make()
    freed = [
        weakref.ref(use(tiers, REFS[:1])[REFS[0]].sites["s"]["A"].untyped_storage()),
    ]
    with tiers.host.pin(REFS[:1]) as lease:
        freed.append(weakref.ref(lease.experts[REFS[0]].sites.buffer))
    del lease
    tiers.drop("e0")
    gc.collect()
    assert [tier.bytes for tier in tiers.stats.values()] == [0, 0]
    assert [ref() for ref in freed] == [None, None]


def test_loads_are_told_by_tier(make):
    told: list[tuple[str, float]] = []
    tiers = make(host=4, device=1, on_load=lambda tier, seconds: told.append((tier, seconds)))
    for ref in (REFS[0], REFS[1], REFS[0]):
        use(tiers, [ref])
    assert Counter(tier for tier, _ in told) == {"host": 2, "device": 3}
    assert all(seconds >= 0 for _, seconds in told)


def test_a_cold_expert_is_served_while_hot_ones_fill_the_device(make):
    tiers = make(host=3, device=2)
    stop = threading.Event()

    def hot() -> None:
        while not stop.is_set():
            use(tiers, REFS[:2])

    threads = [threading.Thread(target=hot) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            for ref in REFS[2:]:
                assert ref in use(tiers, [ref])
    finally:
        stop.set()
        for thread in threads:
            thread.join(5)
    assert not any(thread.is_alive() for thread in threads)
