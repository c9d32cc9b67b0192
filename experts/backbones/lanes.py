"""Several passes at once: copies of a frozen model that share its weights, one core each.

Two threads inside one pass wait for each other at every layer; two passes side by side do not, and
get a quarter more done. Each lane has its own hooks, so each has its own mix in force.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import nn

from experts.backbones.halfway import lower_half
from experts.backbones.hooks import SiteHooks
from experts.kinds import Site

T = TypeVar("T")


class Lane:
    """One copy of the model, with the hooks of its sites.

    Attributes:
        reader: what turns tokens into states, by its name in the model. lower_half: where a pass
            of it begins and is half-way up.
    """

    def __init__(self, model: nn.Module, sites: Mapping[str, Site], reader: str = "") -> None:
        self.model = model
        self.reader = model.get_submodule(reader)
        self.hooks = SiteHooks(model, sites)
        self.lower_half = lower_half(self.reader)
        self._reader = reader

    def copy(self, sites: Mapping[str, Site]) -> Lane:
        """Another lane over the same weights."""
        shared = [*self.model.parameters(), *self.model.buffers()]
        shared += [t for module in self.model.modules() for t in _kept_aside(module)]
        model = copy.deepcopy(self.model, {id(t): t for t in shared})
        for module in model.modules():
            # They belong to this lane, not to the copy.
            module._forward_hooks.clear()  # pyright: ignore[reportPrivateUsage]
        return Lane(model, sites, self._reader)


class Lanes:
    """Runs jobs on whichever lane is free. With one lane, in the calling thread.

    Args:
        first: the first lane. before: called before every job that the calling thread runs; what
            it raises ends the work.
    """

    def __init__(self, first: Lane, before: Callable[[], None] = lambda: None) -> None:
        self.first = first
        self.all = [first]
        self._before = before
        self._free: SimpleQueue[Lane] = SimpleQueue()
        self._free.put(first)
        self._pool: ThreadPoolExecutor | None = None

    @property
    def count(self) -> int:
        """How many passes run side by side."""
        return len(self.all)

    def widen(self, count: int, sites: Mapping[str, Site]) -> None:
        """Have `count` lanes, and one thread in each pass from now on in this process."""
        for _ in range(count - self.count):
            lane = self.first.copy(sites)
            self.all.append(lane)
            self._free.put(lane)
        if self.count > 1:
            torch.set_num_threads(1)
            self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="lane")

    def map(
        self, work: Callable[[Lane, Sequence[int]], T], jobs: Sequence[Sequence[int]]
    ) -> list[T]:
        """`work(lane, job)` for every job, side by side, in order of the jobs."""
        if self._pool is None or len(jobs) < 2:
            return [self._here(work, job) for job in jobs]

        def run(job: Sequence[int]) -> T:
            lane = self._free.get()
            try:
                return work(lane, job)
            finally:
                self._free.put(lane)

        return self.together([partial(run, job) for job in jobs])

    def together(self, jobs: Sequence[Callable[[], T]]) -> list[T]:
        """Results of jobs that run side by side, each on a lane of its own choice."""
        if self._pool is None or len(jobs) < 2:
            return [job() for job in jobs]
        inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

        def run(job: Callable[[], T]) -> T:
            with torch.inference_mode(inference), torch.set_grad_enabled(grad):
                return job()

        running = [self._pool.submit(run, job) for job in jobs]
        wait(running)  # all of them: one that fails must leave no other at work behind its back
        return [job.result() for job in running]

    def _here(self, work: Callable[[Lane, Sequence[int]], T], job: Sequence[int]) -> T:
        self._before()
        return work(self.first, job)


def _kept_aside(module: nn.Module) -> Iterator[torch.Tensor]:
    """Tensors of a module beside its parameters: packed weights, what a quantised layer notes."""
    for held in vars(module).values():
        parts = [held, *getattr(held, "__dict__", {}).values()]
        yield from (part for part in parts if isinstance(part, torch.Tensor))


def at_least(jobs: Sequence[list[int]], count: int) -> list[list[int]]:
    """Halve the largest jobs until there are `count`, or all have one row."""
    split = [list(job) for job in jobs]
    while 0 < len(split) < count:
        largest = max(split, key=len)
        if len(largest) < 2:
            break
        split.remove(largest)
        half = (len(largest) + 1) // 2
        split += [largest[:half], largest[half:]]
    return split
