"""What the faults led to, counted: the table that the suite prints and can keep.

A round is one fault at one moment. *Lost* is what a server had taken on and neither did nor
refused; *hung* is what had no end within its time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Fault:
    """One sort of fault.

    Attributes:
        endings: how its rounds ended, in a few words each.
    """

    name: str
    rounds: int = 0
    lost: int = 0
    hung: int = 0
    endings: Counter[str] = field(default_factory=Counter)

    def round(self, ending: str, *, lost: int = 0, hung: int = 0) -> None:
        """Count a round."""
        self.rounds += 1
        self.lost += lost
        self.hung += hung
        self.endings[ending] += 1

    @property
    def ended(self) -> str:
        """All endings, the most frequent first."""
        told = self.endings.most_common()
        return "; ".join(f"{what} ({count})" if len(told) > 1 else what for what, count in told)


class Ledger:
    """All faults of a run."""

    def __init__(self) -> None:
        self.faults: dict[str, Fault] = {}

    @contextmanager
    def fault(self, name: str) -> Generator[Fault]:
        """Count rounds of a fault; fails at the end where something was lost, or hung."""
        fault = self.faults.setdefault(name, Fault(name))
        before = (fault.lost, fault.hung)
        yield fault
        assert (fault.lost, fault.hung) == before, f"{name}: {fault}"

    def rows(self) -> list[dict[str, object]]:
        """The table, in the order in which faults were met."""
        return [
            {"fault": f.name, "rounds": f.rounds, "lost": f.lost, "hung": f.hung,
             "ended": f.ended} for f in self.faults.values()
        ]  # fmt: skip

    def lines(self) -> list[str]:
        """The table to be read."""
        wide = max(len(name) for name in self.faults)
        head = f"{'fault':{wide}}  rounds  lost  hung  how it ended"
        return [head] + [
            f"{f.name:{wide}}  {f.rounds:6}  {f.lost:4}  {f.hung:4}  {f.ended}"
            for f in self.faults.values()
        ]

    def save(self, path: Path) -> None:
        """Keep the table as JSON."""
        path.write_text(json.dumps(self.rows(), indent=2) + "\n", "utf-8")
