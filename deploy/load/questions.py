"""What is asked: texts and questions of the demo's 18 tasks, drawn at random with a Zipf law.

The material is ours and lies in `questions.json`. Knows the wire's shapes, not who sends them.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

SLOT = re.compile(r"\{(\w+)\}")
ZIPF = 1.0
SAME_TASK, SURE, FULL, FORCED, OTHER_TYPES = 0.35, 0.15, 0.1, 0.1, 0.15
"""Shares: of requests with more than one question, with a sure answer, with the full trace, that
name their expert, and of questions that are no choice."""
BOOKING = "Book a table for four at the tapas bar by the harbour tonight."
"""The README's own example: two questions, two experts."""


class Questions:
    """Draws requests.

    Args:
        rng: what draws; a seeded one draws the same again.
        experts: those the server has; a task whose expert is missing has no sure answer and is
            not forced, but is asked all the same.
    """

    def __init__(self, rng: random.Random, experts: Collection[str] = ()) -> None:
        told = json.loads(Path(__file__).with_name("questions.json").read_text("utf-8"))
        self.rng = rng
        self.slots: Mapping[str, Sequence[str]] = told["slots"]
        self.tasks: Sequence[Mapping[str, Any]] = told["tasks"]
        self.known = frozenset(experts) & {task["expert"] for task in self.tasks}
        self._weights = list(accumulate(1 / rank**ZIPF for rank in range(1, len(self.tasks) + 1)))

    def task(self) -> Mapping[str, Any]:
        """A task: the first is the most popular."""
        return self.rng.choices(self.tasks, cum_weights=self._weights)[0]

    def text(self, task: Mapping[str, Any] | None = None) -> str:
        """A text that seldom came before."""
        template = self.rng.choice((task or self.task())["texts"])
        return SLOT.sub(lambda slot: self.rng.choice(self.slots[slot[1]]), template)

    def decision(self) -> tuple[dict[str, Any], list[str | None]]:
        """A request for `/v1/decisions`, and for each question its right choice where sure."""
        draw, task = self.rng.random, self.task()
        sure = draw() < SURE and task["sure"] and task["expert"] in self.known
        text, answer = self.rng.choice(task["sure"]) if sure else (self.text(task), None)
        questions = [choice(self.rng.choice(task["asks"]), task["choices"])]
        if answer is None and draw() < OTHER_TYPES:
            questions = [self._other(task)]
        if draw() < SAME_TASK:
            others = [self.task() for _ in range(self.rng.randint(1, 3))]
            questions += [choice(t["asks"][0], t["choices"]) for t in others]
        asked: dict[str, Any] = {"model": "auto", "input": text, "questions": questions}
        if draw() < FORCED and task["expert"] in self.known:
            asked["model"] = task["expert"]
        if draw() < FULL:
            asked["routing"] = {"trace": "full"}
        return asked, [answer]

    def booking(self) -> tuple[dict[str, Any], list[str | None]]:
        """The README's first request, and its answers where the demo's experts are."""
        intents = ("book a restaurant", "play music", "get the weather")
        asked = {
            "model": "auto",
            "input": BOOKING,
            "questions": [
                choice("What does the user want the assistant to do?", intents),
                choice("Which language is this text written in?", ("English", "Spanish", "German")),
            ],
        }
        sure = {"snips", "language_id"} <= self.known
        return asked, [intents[0], "English"] if sure else []

    def route(self) -> dict[str, Any]:
        """A request for `/v1/route`."""
        task = self.task()
        asks = choice(self.rng.choice(task["asks"]), task["choices"])
        return {"model": "auto", "input": self.text(task), "questions": [asks]}

    def embedding(self) -> dict[str, Any]:
        """A request for `/v1/embeddings`: one text, or several with the first of them twice."""
        if self.rng.random() < 0.5:
            return {"model": "auto", "input": self.text()}
        task = self.task()
        texts = [self.text(task) for _ in range(self.rng.randint(2, 6))]
        return {"model": "auto", "input": [*texts, texts[0]]}

    def _other(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """A predicate or a score about one of the task's choices."""
        one = self.rng.choice(task["choices"])
        if self.rng.random() < 0.5:
            return {"type": "predicate", "instructions": f"This is about: {one}."}
        levels = [{"label": label} for label in ("not at all", "somewhat", "very much")]
        return {"type": "score", "instructions": f"How well does {one} fit?", "levels": levels}


def choice(instructions: str, choices: Sequence[str]) -> dict[str, Any]:
    """A choice question."""
    values = [{"value": value} for value in choices]
    return {"type": "choice", "instructions": instructions, "choices": values}
