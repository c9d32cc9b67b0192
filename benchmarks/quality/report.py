"""Writes what a run found: a page of Markdown, the pictures it shows, and all figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks.documents import commit
from benchmarks.places import DOCS, RESULTS
from benchmarks.quality import tables
from benchmarks.quality.bounds import shortfalls
from benchmarks.quality.cells import Cell
from benchmarks.quality.findings import Numbers, kept_gains, paragraphs
from benchmarks.quality.parts import Held
from benchmarks.quality.plots import draw
from benchmarks.quality.rows import COUNTS, CURVES
from benchmarks.quality.run import ASIDE_LIMIT, SINGLE, Found
from benchmarks.quality.summary import Group, Summary
from benchmarks.quality.targets import Target, targets_of
from experts.atomic import atomic_write

CONDITIONS_TEXT = {
    "input": "the input alone",
    "choices": "the input and the choices, as a client sends them",
    "instruction": "the input and one of three paraphrases of the task in turn, none of them its "
    "own definition. Two of them are among the sentences that its expert is described by, so held "
    "in they are looked up as they stand; no row was fitted on the third, which columns show alone",
    "reworded": "the input and the choices in wordings that no training or fitting used, "
    "shuffled, with a foreign one added (the answer has to be found among these too). Questions "
    "that bring choices of their own (BBH, arc_easy, openbookqa, commonsense_qa) keep their words",
}


def write_report(found: Found, folder: Path | None = None) -> list[Path]:
    """Write page, pictures and figures.

    Args:
        folder: for all of them; None for the places of the documents.

    Returns:
        What was written, the page first.
    """
    page = (folder or DOCS) / "quality.md"
    figures = (folder or RESULTS) / "quality.json"
    for path in (page, figures):
        path.parent.mkdir(parents=True, exist_ok=True)
    targets = targets_of(found.summary, outside(found))
    pictures = draw(found, page.parent)
    atomic_write(page, "\n".join(_page(found, targets, pictures)).encode())
    atomic_write(figures, (json.dumps(_figures(found, targets), indent=1) + "\n").encode())
    return [page, figures, *pictures.values()]


def outside(found: Found) -> Group:
    """The tasks without an expert: held out, or left out in a run on the data set aside."""
    held: Held = "left" if found.order.aside else "out"
    return Group(held)


def _page(found: Found, targets: list[Target], pictures: dict[str, Path]) -> Iterator[str]:
    summary, order = found.summary, found.order
    compared = order.rows
    yield from _head(found)
    yield from ["## Targets", "", *tables.targets(targets)]
    for condition in ("reworded", "choices", "instruction", "input"):
        if condition in order.conditions:
            yield from [f"## {condition}", "", f"The router sees {CONDITIONS_TEXT[condition]}.", ""]
            yield from tables.comparison(summary, compared, condition)
    if missing := tables.gaps(summary, compared):
        yield from ["Not made:", "", *missing]
    yield from _picture(pictures, "heat", "Accuracy by row and task")
    yield from ["## Routing", "", ROUTING_TEXT, ""]
    yield from tables.routing(summary, compared, found.milliseconds)
    yield from _picture(pictures, "confusion", "Which expert came first, by task")
    yield from _picture(pictures, "reliability", "Confidence against outcome")
    if found.ablations:
        variants = [r for r in found.ablations.rows if r.group == "ablation"]
        yield from ["## Ablations", "", ABLATIONS_TEXT, ""]
        yield from tables.ablations(found.ablations, variants)
    if found.curve:
        yield from ["## How many experts to mix", "", CURVE_TEXT, ""]
        yield from tables.curve(found.curve, CURVES, COUNTS)
        yield from _picture(pictures, "count", "Accuracy against the number of experts merged")
    yield from ["## The default against no expert", ""]
    for condition in order.conditions:
        yield from [f"### {condition}: gain", "", *tables.gains(summary, condition)]
    yield from ["## By task", ""]
    for condition in order.conditions:
        yield from [f"### {condition}: tasks", "", *tables.per_task(summary, compared, condition)]
    yield from ["## Findings", ""]
    numbers = Numbers(summary, found.curve, found.ablations, kept_gains())
    yield from paragraphs(numbers, outside(found).held)
    yield from ["## What bounds it", "", *shortfalls(numbers, outside(found))]


ROUTING_TEXT = (
    "*Own first*: share of held-in inputs for which the task's own expert has the most weight; of "
    "GLIDER by its sentence, before the gates; `-` where a row prefers none. *Experts*: how many "
    "act on one token, on average. *ms/input*: median over batches of 8, rows taking turns on the "
    "same inputs of the held-in tasks in one run under choices; embeddings of choices are warm, "
    "features of inputs are not. Rows that do the same work (best single expert, multitask, "
    "oracle) show how far times differ by chance."
)
ASIDE_TEXT = (
    f"Measured on {ASIDE_LIMIT} examples a task set aside before training, never on test files; "
    "*left out* are the same tasks with their own expert taken out of the library."
)
ABLATIONS_TEXT = f"{ASIDE_TEXT} In brackets: points above or below the default, asked the same."
CURVE_TEXT = (
    f"{ASIDE_TEXT} The K best are "
    "merged per sample: with the default's weights, with DAM's, or equally (chosen by retrieval)."
)


def _head(found: Found) -> Iterator[str]:
    order, bench = found.order, found.summary.results.bench
    asked = "examples set aside of the train files" if order.aside else "test files"
    limit = f", the first {order.limit} of each task" if order.limit else ""
    yield "# Quality"
    yield ""
    yield f"Written by `python -m benchmarks.quality` at commit {commit()}; do not edit."
    yield ""
    yield (
        f"How well each way of choosing experts answers, asked through the engine that serves: "
        f"{asked}{limit}, {len(bench.experts)} experts, the demo backbone. Means are over tasks, "
        "in percent, with 95% bootstrap intervals (examples resampled within tasks). The answer "
        "is always chosen among the choices; the rows differ in who answers, and the conditions "
        "in what the router sees. No router sees a task's name."
    )
    yield ""
    yield (
        "*Best single expert*: the one that is best for all tasks on "
        f"{SINGLE.limit} examples of each set aside. *Retrieval*: the expert with the nearest of "
        "1,000 stored training inputs. *kNN*: the expert with most of the 20 nearest of them. "
        "*TIES* and *task arithmetic* have strengths chosen on the same examples. *LoraHub*: five "
        "examples of each task's train file weigh all experts; held in, the task's own is among "
        "them. *GLIDER*: cosine of the query's sentence with the nearest of an expert's six "
        "instructions (its release has one), times a fixed scale, beside the gates; "
        "where no caller gives a sentence (no language model was at "
        "hand) it is the template's under choices and reworded, and the input itself under input. "
        "*Oracle*: held in, the task's own expert; otherwise the best expert for each task chosen "
        "on these very examples: an upper bound, whose interval does not draw the choice anew."
    )
    yield ""


def _picture(pictures: dict[str, Path], name: str, title: str) -> list[str]:
    return [f"![{title}]({pictures[name].name})", ""] if name in pictures else []


def _figures(found: Found, targets: list[Target]) -> dict[str, object]:
    return {
        "commit": commit(),
        "library": found.summary.results.bench.routing_digest,
        "aside": found.order.aside,
        "limit": found.order.limit,
        "targets": [asdict(t) for t in targets],
        "milliseconds": found.milliseconds,
        "means": list(_means(found.summary)),
        "cells": list(_cells(found.summary)),
        "ablations": list(_means(found.ablations)) if found.ablations else [],
        "accuracy_against_k": list(_means(found.curve)) if found.curve else [],
    }


def _means(summary: Summary) -> Iterator[dict[str, object]]:
    for row in summary.rows:
        for group in summary.groups:
            for condition in summary.results.questions.conditions:
                mean = summary.mean(row, group, condition)
                place = {"row": row.name, "group": group.title, "condition": condition}
                if hasattr(mean, "reason"):
                    yield {**place, "gap": mean.reason}
                else:
                    said = {k: round(v, 4) for k, v in asdict(mean).items()}
                    yield {**place, **said}


def _cells(summary: Summary) -> Iterator[dict[str, object]]:
    for row in summary.rows:
        for part, task, condition in summary.results.questions:
            cell = summary.results.cell(row, part, task, condition)
            place = {"row": row.name, "held": part.held, "task": task.name, "condition": condition}
            if isinstance(cell, Cell):
                yield {**place, "accuracy": round(cell.accuracy, 4), "examples": len(cell)}
            else:
                yield {**place, "gap": cell.reason}
