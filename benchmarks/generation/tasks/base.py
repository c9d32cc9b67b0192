"""What a task is: text in, text out, both made by code, and sentences that say what to do.

Knows no task in particular.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.generation.texts import is_test

Example = tuple[str, str]
"""Input and the one right output."""


@dataclass(frozen=True)
class Task:
    """One skill.

    Attributes:
        looks: what its inputs are drawn from; tasks that share it cannot be told by their input.
        instructions: one sentence each, as a caller or an instruction writer would put it.
        unseen: one more wording, to ask with, that no routing artefact is made from.
        draw: an input.
        answer: the output of an input.
    """

    id: str
    title: str
    looks: str
    instructions: tuple[str, ...]
    unseen: str
    draw: Callable[[random.Random], str]
    answer: Callable[[str], str]

    def make(self, rng: random.Random) -> Example:
        """An example of either split."""
        drawn = self.draw(rng)
        return drawn, self.answer(drawn)

    def stream(self, seed: str | int, *, test: bool = False) -> Iterator[Example]:
        """Examples of one split without end, the same for the same seed; they may repeat."""
        rng = random.Random(f"{self.id}/{seed}")
        while True:
            example = self.make(rng)
            if is_test(example[0]) == test:
                yield example

    def tests(self, count: int) -> list[Example]:
        """`count` different test examples, always the same."""
        found: dict[str, str] = {}
        for text, answer in self.stream("tests", test=True):
            found[text] = answer
            if len(found) == count:
                return list(found.items())
        raise AssertionError("the stream has no end")
