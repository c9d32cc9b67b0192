"""What is compared: streams, kinds and seeds, how much is trained, and on what it is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.continual.records import Numbers
from benchmarks.continual.rows import ROWS, Row
from benchmarks.held_out import LOG
from benchmarks.places import CACHE, CARDS, DATA, LIBRARY, RESULTS
from experts.manifest import Record
from experts.training.data import Task, TaskFormatError
from experts.training.recipe import Recipe, Retention

PLACE = CACHE / "continual"
STREAMS: dict[str, tuple[str, ...]] = {
    "distant": ("sst2", "trec", "ag_news", "sick", "banking77", "tweet_offensive"),
    "near": ("subj", "sst2", "customer_reviews", "clickbait", "tweet_emotion", "tweet_offensive"),
}
"""Tasks in the order they come: six domains, and domains that are near to one another."""
RANKS = {"lora": 8, "bottleneck": 48}
"""Ranks by kind; DAM's bottleneck is an eighth of the backbone's width."""
SEEDS = (0, 1)


@dataclass(frozen=True)
class Setting:
    """One stream, learnt once: everything in it is independent of all other settings."""

    stream: str
    kind: str
    seed: int

    @property
    def name(self) -> str:
        """Names it, and its folder."""
        return f"{self.stream}-{self.kind}-{self.seed}"

    @classmethod
    def named(cls, name: str) -> Setting:
        """The setting of a name."""
        stream, kind, seed = name.split("-")
        return cls(stream, kind, int(seed))


class Plan(Record):
    """How a run is made.

    Attributes:
        data: holds `held_in` and `held_out`. cache: trained experts and measured cells.
        library: whose experts of other tasks the router's constants are fitted on, at most `others`
            of them; None takes all. cards: of the tasks.
        length: so many tasks of each stream. examples, epochs: of each training.
        limit: questions a task; None asks all.
        aside: ask the examples set aside from the train files, not the test files.
        retention: of replay and EWC. rows: names of rows; none is all. again: rows to ask anew.
    """

    data: Path = DATA
    cache: Path = PLACE / "full"
    library: Path = LIBRARY
    others: int | None = None
    cards: Path = CARDS
    backbone: str = "demo"
    streams: tuple[str, ...] = tuple(STREAMS)
    kinds: tuple[str, ...] = tuple(RANKS)
    seeds: tuple[int, ...] = SEEDS
    length: int = 6
    examples: int = 1000
    epochs: int = 3
    limit: int | None = None
    aside: bool = False
    retention: Retention = Retention()
    rows: tuple[str, ...] = ()
    again: tuple[str, ...] = ()

    @property
    def settings(self) -> list[Setting]:
        """All that is to be learnt."""
        return [Setting(s, k, n) for n in self.seeds for s in self.streams for k in self.kinds]

    @property
    def is_reported(self) -> bool:
        """Whether this is what the documents report, or some settings of it."""
        return self == Plan(
            data=self.data, cache=self.cache, again=self.again, streams=self.streams,
            kinds=self.kinds, seeds=self.seeds,
        )  # fmt: skip

    @property
    def report(self) -> Path:
        """Where the report of this run goes, and what it is made from; not of the documents'."""
        return self.cache / "report"

    @property
    def held_out_log(self) -> Path:
        """Where a run is noted that asks the test file of a held-out task."""
        return LOG if self.is_reported else self.report / LOG.name

    @property
    def records(self) -> Path:
        """Where what is found of a setting is kept."""
        return (RESULTS if self.is_reported else self.report) / "continual"

    @property
    def shown_settings(self) -> list[Setting]:
        """Those a report is of: the run's; where documents report it, also those kept before."""
        return Plan().settings if self.is_reported else self.settings

    @property
    def numbers(self) -> Numbers:
        """What figures must have in common to be compared."""
        return Numbers(
            examples=self.examples, epochs=self.epochs, limit=self.limit,
            asked="set aside" if self.aside else "test", retention=self.retention,
        )  # fmt: skip

    @property
    def shown(self) -> list[Row]:
        """The rows that are asked for, in their order."""
        return [row for name, row in ROWS.items() if not self.rows or name in self.rows]

    def order(self, stream: str) -> tuple[str, ...]:
        """Names of a stream's tasks, in the order they come."""
        return STREAMS[stream][: self.length]

    def recipe(self, setting: Setting) -> Recipe:
        """How every expert of a setting is trained."""
        return Recipe(
            kind=setting.kind, rank=RANKS[setting.kind], epochs=self.epochs, min_steps=1,
            examples=self.examples, seed=setting.seed,
        )  # fmt: skip

    def tasks(self, setting: Setting) -> list[Task]:
        """The tasks of a setting, in the order they come.

        Raises:
            TaskFormatError: one is in neither part of the data.
        """
        return [self._task(name) for name in self.order(setting.stream)]

    def _task(self, name: str) -> Task:
        folders = [self.data / held / name for held in ("held_in", "held_out")]
        found = [folder for folder in folders if (folder / "task.json").exists()]
        if not found:
            raise TaskFormatError(f"{self.data} has no task {name} in held_in or held_out.")
        return Task(found[0])


def quick(plan: Plan) -> Plan:
    """The smoke test of a plan: little of everything, and no test file."""
    few = {"length": 3, "examples": 48, "epochs": 1, "limit": 16, "seeds": (0,), "aside": True,
           "others": 3}  # fmt: skip
    return plan.model_copy(update={**few, "cache": PLACE / "quick"})


def chosen(names: Sequence[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    """Those of `known` that are named; all where none is.

    Raises:
        ValueError: one is not known.
    """
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"no {what} {', '.join(unknown)}; there are {', '.join(known)}")
    return tuple(name for name in known if not names or name in names)
