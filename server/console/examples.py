"""Something to click for every expert that says what it can be tried with. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.console.wish import Sort, Wish


@dataclass(frozen=True)
class Example:
    """A made-up input of an expert's task. The request names no expert.

    Attributes:
        expert: whose it is. answer: what is right.
    """

    expert: str
    title: str
    wish: Wish
    answer: str


def examples(experts: Mapping[str, Mapping[str, Any]], sort: Sort) -> list[Example]:
    """One for each expert that has samples, in the library's order; `sort`: see `example`."""
    return [example(expert, sort) for expert in experts.values() if expert["samples"]]


def example(expert: Mapping[str, Any], sort: Sort, number: int = 0) -> Example:
    """One of an expert's samples, asked with its first instruction.

    Args:
        sort: how it is asked where there is nothing to choose from.
    """
    sample = expert["samples"][number]
    options = tuple(sample["choices"] or expert["labels"])
    wish = Wish(
        sort="choice" if options else sort, text=sample["input"],
        instruction=next(iter(expert["instructions"]), ""), options=options,
    )  # fmt: skip
    return Example(expert["id"], expert["title"] or expert["id"], wish, sample["answer"])
