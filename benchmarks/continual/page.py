"""The report of a run as a page of Markdown. Decides no figure; see `report`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.continual.plan import Plan
from benchmarks.continual.rows import DEFAULT, ROWS
from benchmarks.documents import table
from experts.atomic import atomic_write

NOT_MADE = "-"
Rows = Mapping[str, Mapping[str, Any]]


def write_page(found: Mapping[str, Any], pictures: Sequence[Path], folder: Path) -> Path:
    """Write `continual.md`.

    Args:
        found: what `report.figures` made. pictures: one a stream, in `folder`.
    """
    path = folder / "continual.md"
    atomic_write(path, "\n".join(_page(found, pictures)).encode())
    return path


def _page(found: Mapping[str, Any], pictures: Sequence[Path]) -> Iterator[str]:
    yield from _head(found)
    yield from ["## Targets", "", *_targets(found["targets"])]
    for (stream, kinds), picture in zip(found["rows"].items(), pictures, strict=True):
        tasks = found["tasks"][stream]
        yield from [f"## The stream of {stream} domains", "", f"In this order: {', '.join(tasks)}."]
        yield from ["", f"![Average accuracy after each step]({picture.name})", ""]
        for kind, rows in kinds.items():
            yield from [f"### {stream}, {kind}", "", *_rows(rows)]
            yield from ["After the last step, by task:", "", *_tasks(rows, tasks)]
    yield from ["## What continual initialisation buys", "", GAINS_TEXT, ""]
    yield from _gains(found["gains"])


GAINS_TEXT = (
    "Rows that answer in the same way, with each expert started from the one before it and with "
    "each started afresh: points of final accuracy gained by the former, in brackets for each "
    "seed, and each's forgetting."
)


def _head(found: Mapping[str, Any]) -> Iterator[str]:
    numbers = found["numbers"]
    yield "# Continual learning"
    yield ""
    yield (
        f"Written by `python -m benchmarks.continual`, asked at {', '.join(found['commits'])}; do "
        "not edit."
    )
    yield ""
    there, all_of_them = len(found["settings"]), len(Plan().settings)
    if there < all_of_them:
        names = ", ".join(found["settings"])
        yield f"**Not whole yet**: {there} of {all_of_them} settings are measured ({names})."
        yield ""
    limit = f", at most {numbers['limit']} a task" if numbers["limit"] else ""
    yield (
        f"Streams of tasks that come one after the other: {numbers['examples']:,} examples and "
        f"{numbers['epochs']} epochs each, the demo backbone; asked are the {numbers['asked']} "
        f"examples{limit}. The router sees the input "
        "only, and its constants are of a library without any of the stream's tasks. *Final*: "
        "mean accuracy over all tasks after the last step, in percent, in brackets for each "
        "seed. *Forgetting*: mean over all tasks but the last of the accuracy after the last "
        "step less the accuracy right after the task was learnt, in points; below 0 is a loss. "
        "*Own first*: share of inputs for which the task's own expert has the most weight. Rows "
        f"with a memory keep {100 * numbers['retention']['replay']:g}% of each former task's "
        f"examples; EWC has strength {numbers['retention']['ewc']:g}, chosen with LoRA on examples "
        "of the near stream set aside. *S-Prompts-like* chooses by an expert's mean input and 8 "
        "k-means centres (S-Prompts has 5). customer_reviews is one of the comparison's tasks "
        "without an expert; here it has one."
    )
    yield ""


def _targets(found: Sequence[Mapping[str, Any]]) -> list[str]:
    words = {True: "yes", False: "**no**"}
    lines = [
        [t["figure"], f"{t['value']:g}", _signed(t["seeds"]), t["target"], words[t["holds"]]]
        for t in found
    ]
    return table(["figure", "value", "by seed", "target", "holds"], lines)


def _rows(rows: Rows) -> list[str]:
    """Every row's figures."""
    lines = [
        [
            f"**{row['title']}**" if name == DEFAULT else row["title"],
            f"{row['final']:.1f} ({', '.join(_plain([s['final'] for s in row['seeds']]))})",
            f"{row['forgetting']:+.1f}" if "forgetting" in row else NOT_MADE,
            f"{row['own expert first']:.1f}" if ROWS[name].routes else NOT_MADE,
            *_plain(row["steps"]),
        ]
        for name, row in rows.items()
    ]
    steps = max(len(row["steps"]) for row in rows.values())
    after = [f"after {step + 1}" for step in range(steps)]
    return table(["", "final", "forgetting", "own first", *after], lines)


def _tasks(rows: Rows, tasks: Sequence[str]) -> list[str]:
    """Accuracy by row and task at the end, a mean over seeds."""
    lines: list[list[str]] = []
    for row in rows.values():
        last = [seed["matrix"][-1] for seed in row["seeds"]]
        means = [sum(of_task) / len(of_task) for of_task in zip(*last, strict=True)]
        lines.append([row["title"], *_plain(means)])
    return table(["", *tasks], lines)


def _gains(found: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        [f"{g['stream']}, {g['kind']}", ROWS[g["row"]].title,
         f"{g['points']:+.1f} ({_signed(g['seeds'])})",
         *(NOT_MADE if f is None else f"{f:+.1f}" for f in g["forgetting"])]
        for g in found
    ]  # fmt: skip
    return table(["", "row", "gain", "forgetting", "forgetting, apart"], lines)


def _signed(points: Sequence[float]) -> str:
    return ", ".join(f"{p:+.1f}" for p in points)


def _plain(shares: Sequence[float]) -> list[str]:
    return [f"{share:.1f}" for share in shares]
