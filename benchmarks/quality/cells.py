"""What was measured: one cell is a way, a task, a condition and a part of the data.

A cell is a JSON file below `cells/<part>/<way>/`, with a digest of all it depends on; one whose
digest is another counts as not there. Code is not part of the digest: raise `FORMAT`, or ask with
`--again`, when answers or decisions change by the code alone. Holds no text of any example.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.ablations import VARIANTS
from benchmarks.quality.conditions import UNSEEN, Condition
from benchmarks.quality.parts import Part
from benchmarks.quality.rows import Forced, Way
from benchmarks.quality.workbench import Bench, digest_of
from experts.atomic import atomic_write
from experts.training.data import Task
from routers.presets import Preset

FORMAT = 1
DIGITS = 5


@dataclass(frozen=True)
class Place:
    """Where a cell belongs."""

    part: Part
    way: Way
    task: str
    condition: Condition

    def path(self, root: Path) -> Path:
        """Its file."""
        return root / self.part.name / self.way.name / f"{self.task}.{self.condition}.json"


@dataclass(frozen=True)
class Cell:
    """Per example, in order.

    Attributes:
        right: 1 or 0. first: the expert of most weight, None for the bare backbone. experts: how
            many act on one token. confidence: the policy's, None where it has none. top: the
            answer's greatest probability. paraphrase: which sentence asked; empty where none did.
    """

    right: list[int] = field(default_factory=list)
    first: list[str | None] = field(default_factory=list)
    experts: list[int] = field(default_factory=list)
    confidence: list[float | None] = field(default_factory=list)
    top: list[float] = field(default_factory=list)
    paraphrase: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        """Examples."""
        return len(self.right)

    @cached_property
    def right_N(self) -> NDArray[np.float64]:
        """(N,) 1.0 where the answer was right."""
        return np.asarray(self.right, dtype=np.float64)

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(self.right_N.mean())

    @property
    def confidence_N(self) -> NDArray[np.float64]:
        """(N,) the policy's confidence; none counts as 0."""
        return np.asarray([c or 0.0 for c in self.confidence], dtype=np.float64)

    def own_N(self, task: str) -> NDArray[np.float64]:
        """(N,) 1.0 where the task's own expert came first."""
        return np.asarray([first == task for first in self.first], dtype=np.float64)

    @property
    def unseen(self) -> Cell:
        """The examples asked by the paraphrase that no fitting used."""
        at = [i for i, which in enumerate(self.paraphrase) if which == UNSEEN]
        return Cell(**{name: [rows[i] for i in at] for name, rows in asdict(self).items()})


def digest(place: Place, bench: Bench, task: Task) -> str:
    """All that a cell depends on, the code aside."""
    part, way = place.part, place.way
    file = "train.jsonl.gz" if part.aside else "test.jsonl.gz"
    card = bench.cards.get(task.name)
    asked = (
        bench.sha(task.folder / file), part.name, place.condition,
        card.model_dump(mode="json", include={"labels", "instructions", "instruction_unseen"})
        if card and place.condition in ("instruction", "reworded") else None,
        bench.words if place.condition == "reworded" else None,
    )  # fmt: skip
    if isinstance(way, Forced):
        who: object = bench.expert_digest(way.expert)
    else:
        preset = bench.engine.presets[way.preset]
        who = (repr(preset), way.top_k, way.mode, _knows(bench, preset))
    return digest_of(FORMAT, bench.engine.backbone.fingerprint, who, *asked)


def _knows(bench: Bench, preset: Preset) -> str:
    """What decides how a preset routes: experts, and constants where it goes by any."""
    if preset.request is None:
        return ""
    calibrated = preset.is_calibrated or preset.name in VARIANTS
    return bench.routing_digest if calibrated else bench.experts_digest


def read_cell(root: Path, place: Place, key: str) -> Cell | None:
    """A cell that was measured with this digest, if there is one."""
    path = place.path(root)
    if not path.exists():
        return None
    said = json.loads(path.read_text("utf-8"))
    return Cell(**said["cell"]) if said["digest"] == key else None


def write_cell(root: Path, place: Place, key: str, cell: Cell) -> None:
    """Keep a cell, in the place of what was measured before."""
    path = place.path(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    said = json.dumps({"digest": key, "cell": asdict(cell)}, separators=(",", ":"))
    atomic_write(path, said.encode())
