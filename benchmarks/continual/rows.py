"""The rows: ways to answer the tasks seen so far, after each step of a stream.

The S-Prompts-like rows do what S-Prompts (Wang et al. 2022) does with prompts: experts trained
apart, and an input goes to the one with the nearest prototype. Prototypes are the artefact
`centroids`: the mean of an expert's training inputs and 8 k-means centres of them, by cosine.
S-Prompts itself takes 5 centres a domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

TOGETHER = "together"
"""The chain, and the expert, of all tasks at once."""


def id_of(chain: str, task: str) -> str:
    """What a chain's expert is called where all are together."""
    return task if chain == "continual" else f"{chain}.{task}"


def tag_of(chain: str, step: int) -> str:
    """The tag of a chain's experts that are there after a step."""
    return f"{chain}-{step}"


@dataclass(frozen=True)
class Way:
    """How the engine is asked: for an expert by its id, or by a preset among those of a tag."""

    expert: str | None = None
    preset: str | None = None
    tag: str | None = None

    @property
    def name(self) -> str:
        """Names it among all ways."""
        return self.expert or f"{self.preset}@{self.tag}"


@dataclass(frozen=True)
class Row:
    """One way to answer.

    Attributes:
        chain: whose experts. by: the expert of the last task; the task's own expert; the one expert
            of all tasks; or the name of a preset that chooses among the experts so far.
    """

    name: str
    title: str
    chain: str
    by: Literal["latest", "own", "all"] | str

    def way(self, order: Sequence[str], step: int, task: int) -> Way:
        """How it answers a task after a step; both are positions in the stream."""
        match self.by:
            case "latest":
                chain = self.chain if step else "continual"  # the first expert is in all chains
                return Way(id_of(chain, order[step]))
            case "own":
                return Way(id_of(self.chain, order[task]))
            case "all":
                return Way(TOGETHER)
            case preset:
                return Way(preset=preset, tag=tag_of(self.chain, step))

    @property
    def routes(self) -> bool:
        """Whether experts are chosen for each input."""
        return self.by not in ("latest", "own", "all", "average")

    @property
    def forgets(self) -> bool:
        """Whether what it answers may change while the stream goes on."""
        return self.by not in ("own", "all")


SEQUENTIAL, DAM, PROMPTS, DEFAULT = "sequential", "dam", "s-prompts", "sailplane"
ORACLE = "oracle"
ROWS = {
    row.name: row
    for row in (
        Row(SEQUENTIAL, "sequential fine-tuning", "continual", "latest"),
        Row("replay", "experience replay", "replay", "latest"),
        Row("ewc", "EWC", "ewc", "latest"),
        Row("average", "average merge", "continual", "average"),
        Row(PROMPTS, "S-Prompts-like top-1", "alone", "retrieval"),
        Row("s-prompts-continual", "S-Prompts-like top-1, continual", "continual", "retrieval"),
        Row(DAM, "DAM", "continual", "dam"),
        Row("dam-alone", "DAM, experts trained apart", "alone", "dam"),
        Row(DEFAULT, "Sailplane's default", "continual", "default"),
        Row("sailplane-alone", "Sailplane's default, experts trained apart", "alone", "default"),
        Row("multitask", "one expert of all tasks", TOGETHER, "all"),
        Row(ORACLE, "oracle: the task's own expert", "continual", "own"),
        Row("oracle-alone", "oracle, experts trained apart", "alone", "own"),
    )
}
APART = {
    DAM: "dam-alone", DEFAULT: "sailplane-alone", ORACLE: "oracle-alone",
    "s-prompts-continual": PROMPTS,
}  # fmt: skip
"""Rows with continual initialisation, and those that answer alike with experts trained apart."""
