"""`python -m benchmarks.faults`: the page on faults, from the table that `make faults` kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from benchmarks.documents import commit, table
from benchmarks.places import DOCS, RESULTS

INTRODUCTION = """\
Every fault against real servers: processes, sockets, disks and signals. Made by `make faults`
{at}. A round is one fault at one moment, mostly a random one. *Lost* is what a server had
taken on and neither did nor refused, *hung* what had no end within its time. What an operator makes
of it: [operations.md](operations.md#faults)."""


def main() -> None:
    """Write the page."""
    rows = json.loads((RESULTS / "faults.json").read_text("utf-8"))
    (DOCS / "faults.md").write_text("\n".join(page(rows, f"at {commit()}")), "utf-8")


def page(rows: Sequence[Mapping[str, object]], at: str) -> list[str]:
    """The page's lines."""
    names = ("rounds", "lost", "hung", "ended")
    total = {name: sum(int(str(row[name])) for row in rows) for name in names[:3]}
    cells = [(str(row["fault"]), *(f"{row[name]}" for name in names)) for row in rows]
    cells.append(("all", *(f"{count}" for count in total.values()), ""))
    head = ("fault", "rounds", "lost", "hung", "how it ended")
    return ["# Faults", "", *INTRODUCTION.format(at=at).split("\n"), "", *table(head, cells)]


if __name__ == "__main__":
    main()
