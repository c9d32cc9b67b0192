"""The words of routing as types: what routers see, what they say, what was decided."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field
from torch import Tensor

from experts.manifest import Record
from routers.metric import Metric

Mode = Literal["single", "merge", "token", "base"]
MAX_STRENGTH = 1000.0
"""Far beyond what any merge needs, and far from what overflows."""


@dataclass(frozen=True)
class Query:
    """What a router may look at. Any part may be absent (empty)."""

    input: str = ""
    instruction: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Features:
    """A query as un-adapted embeddings, each None when the query lacks that part.

    `input_D`, `instruction_D` and `sentence_D` are (D,), `choice_CD` is (C, D); all unit length.
    `sentence_D` is of one sentence about the query, for routers that know no other part of it.
    `input_F` is all of the input's features, of which `input_D` is the half-way part.
    """

    input_D: Tensor | None = None
    instruction_D: Tensor | None = None
    choice_CD: Tensor | None = None
    sentence_D: Tensor | None = None
    input_F: Tensor | None = None
    _white: dict[Metric, Tensor] = field(default_factory=dict, init=False, repr=False)

    def white(self, metric: Metric) -> Tensor | None:
        """`input_F` as a metric sees it, worked out once."""
        if self.input_F is not None and metric not in self._white:
            self._white[metric] = metric.whiten(self.input_F)
        return self._white.get(metric)


class Chosen(Record):
    """One expert of a selection: its weight at request level, and the scores behind it."""

    id: str
    version: int = 1
    weight: float = Field(ge=0)
    score: float = 0.0
    """What the request router gave it."""
    prior: float = 0.0
    """Token mode: the logit of its weight, added to the token router's score."""
    fixed: bool = False
    """Token mode: without vectors for the token router, it keeps `weight` at every token."""

    @property
    def ref(self) -> str:
        """`id@version`: names exactly one set of tensors."""
        return f"{self.id}@{self.version}"


class Selection(Record):
    """What the policy decided for one sample. May be sent back to pin the same experts.

    `strength` scales the merged expert's output. `reason` is one sentence for people.
    """

    mode: Mode
    experts: tuple[Chosen, ...] = ()
    strength: float = Field(default=1.0, ge=0, le=MAX_STRENGTH)
    token_router: str | None = None
    top_k: int = Field(default=2, ge=1)
    reason: str = ""

    @property
    def ids(self) -> tuple[str, ...]:
        """The selected experts, best first."""
        return tuple(e.id for e in self.experts)

    @property
    def refs(self) -> tuple[str, ...]:
        """The same with their versions: what is loaded."""
        return tuple(e.ref for e in self.experts)
