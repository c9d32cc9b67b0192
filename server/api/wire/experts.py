"""Bodies of `/v1/experts`: what an expert that is added is said to be, and what is told of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from experts.manifest import ExpertId, Label, Provenance, SampleInput, Tag, Wording
from server.api.wire.base import Text, Wire
from server.api.wire.examples import Examples
from server.api.wire.questions import MAX_CHOICES

MAX_WORDS = 64  # sentences in one list
Sentences = Annotated[tuple[Text, ...], Field(max_length=MAX_WORDS)]


class LabelOption(Wire):
    """A label of the expert's own label set."""

    value: Text
    description: str | None = None
    statements: Sentences = Field(default=(), description="Say that an input has the label.")
    negations: Sentences = Field(default=(), description="Say that it has not.")

    def to_label(self) -> Label:
        """For the manifest; with a description, that is a second wording of the label."""
        worded = (Wording(value=self.value, description=self.description),)
        return Label(
            value=self.value,
            wordings=worded if self.description else (),
            statements=self.statements,
            negations=self.negations,
        )


class ReplaceExpert(Wire):
    """A folder to add: an adapter that PEFT wrote, or an expert of another library.

    What is said of it here goes into its manifest. One sentence of instructions (or a title) makes
    it routable, a few inputs of its task make its routing better; with neither, and no artefacts in
    the folder (`sailplane fit`), it answers by name only. Predicates need a few statements about
    its labels. Inputs with a label let the server fit gates for it, which token routing reads: it
    answers as described at once, and the fit is its next version (`fit` says how far that is).
    """

    source: Text
    title: Text | None = None
    instructions: Sentences = Field(default=(), description="What its task is, a sentence each.")
    examples: Examples = Field(
        default=(),
        description="Inputs of its task, some with a label. They are not kept on disk.",
    )
    choices: Annotated[tuple[LabelOption, ...], Field(max_length=MAX_CHOICES)] = ()
    tags: Annotated[tuple[Tag, ...], Field(max_length=MAX_WORDS)] = Field(
        default=(), description="What callers may be limited to."
    )


class AddExpert(ReplaceExpert):
    """The same, and what it will be called."""

    id: ExpertId


class RollBack(Wire):
    """The version to go back to."""

    version: Annotated[int, Field(ge=1)]


class FitBody(BaseModel):
    """How far the fit of an expert is: `done` of `total` steps; `message` says why it failed."""

    state: Literal["queued", "running", "done", "failed"]
    done: int
    total: int
    message: str


class UseBody(BaseModel):
    """Where an expert's current version is now, and how often it was selected since the start.

    `last`: seconds since the epoch; null where it was not selected yet.
    """

    tier: Literal["device", "host", "disk"]
    times: int
    last: float | None


class ExpertBody(BaseModel):
    """One expert.

    `state` "unrouted": it answers when named, and no router will choose it. `without_effect`: sites
    that the adapter changes and that cannot reach the backbone's output. `versions`: all that can
    answer as `id@version`. `aliases`: other names of it, and whether they stand for one version.
    `gates`: it has some, so token routing weighs it anew at every token.
    `fit`: the last one this server was asked for.
    `samples`: made-up inputs to try it with. `bytes`: of its files. `use`: what this server knows
    of its use, for callers who may see metrics.
    """

    object: Literal["expert"] = "expert"
    id: str
    version: int
    versions: list[int]
    aliases: Mapping[str, str]
    kind: str
    title: str
    instructions: list[str]
    labels: list[str]
    tags: list[str]
    state: Literal["routed", "unrouted"]
    gates: bool
    fit: FitBody | None
    without_effect: list[str]
    backbone: str
    path: str | None
    samples: list[SampleInput]
    bytes: int | None
    use: UseBody | None
    provenance: Provenance
    scores: Mapping[str, float]


class BadBody(BaseModel):
    """A folder of the library that cannot be served, and why."""

    name: str
    reason: str


class ExpertList(BaseModel):
    """The library. `generation` names its state: equal in every server on an equal library."""

    object: Literal["list"] = "list"
    generation: str
    data: list[ExpertBody]
    bad: list[BadBody]


class ScanBody(BaseModel):
    """What a look at the library's folder found, by id; `bad`: all that cannot be served now."""

    object: Literal["scan"] = "scan"
    added: list[str]
    replaced: list[str]
    removed: list[str]
    bad: list[str]
    generation: str
