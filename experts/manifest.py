"""What an expert says of itself (`expert.json`), and the task card it was trained from.

Pure data: reading and checking files is `experts.library`'s and `experts.files`' work.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

ExpertId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Provenance = Mapping[str, str | int | float | bool | None]
TAG_FORM = (
    "a tag has up to 64 letters, digits, dots, hyphens and underscores, and begins with a letter "
    "or a digit"
)


def is_tag(text: str) -> bool:
    """Whether a text has the form of a tag: `TAG_FORM`, in ASCII."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text) is not None


def _require_tag(text: str) -> str:
    if not is_tag(text):
        raise PydanticCustomError("tag", TAG_FORM)  # type: ignore[arg-type]
    return text


Tag = Annotated[str, AfterValidator(_require_tag)]
"""What callers may be limited to; an expert may carry several."""


class Record(BaseModel):
    """Base of everything stored as JSON: frozen, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Wording(Record):
    """One way to name a label, as a client would send it."""

    value: str
    description: str | None = None

    @property
    def text(self) -> str:
        """What the backbone embeds: `value`, or `value: description`."""
        return self.value if not self.description else f"{self.value}: {self.description}"


class Label(Record):
    """A label, other ways to say it, and statements that assert or deny it.

    `unseen` and the two `*_unseen` sentences are never used in training or fitting: evaluation
    asks with them.
    """

    value: str
    wordings: tuple[Wording, ...] = ()
    unseen: Wording | None = None
    statements: tuple[str, ...] = ()
    negations: tuple[str, ...] = ()
    statement_unseen: str | None = None
    negation_unseen: str | None = None

    @property
    def known(self) -> tuple[Wording, ...]:
        """The label's own name and its wordings: what training and fitting may use."""
        return (Wording(value=self.value), *self.wordings)


class SampleInput(Record):
    """An input to try an expert with, and what is right: made up, and of no data set.

    `choices` where every question of the task brings its own.
    """

    input: str
    answer: str
    choices: tuple[str, ...] = ()


class TaskCard(Record):
    """What is known of a task beside its data: our own words only."""

    id: ExpertId
    title: str
    instructions: tuple[str, ...] = ()
    instruction_unseen: str | None = None
    labels: tuple[Label, ...] = ()
    samples: tuple[SampleInput, ...] = ()


class BackboneRef(Record):
    """The backbone an expert was trained on."""

    id: str
    fingerprint: Sha256


class Manifest(TaskCard):
    """`expert.json`.

    Attributes:
        kind: how the expert changes the backbone. version: grows with every replacement.
        group: its merge group as text (`Kind.group_text`); None in manifests from before.
        files: sha256 of every other file of the folder, by name. sizes: their bytes, so that a file
            cut short is seen without reading it; absent in manifests from before.
        without_effect: sites it holds tensors for that cannot reach the backbone's output.
        provenance: data source, licence, recipe. scores: measured figures by name.
    """

    format: Literal[1] = 1
    version: int = 1
    kind: str
    group: str | None = None
    backbone: BackboneRef
    tags: tuple[Tag, ...] = ()
    without_effect: tuple[str, ...] = ()
    files: Mapping[str, Sha256] = Field(default_factory=dict)
    sizes: Mapping[str, int] = Field(default_factory=dict)
    provenance: Provenance = Field(default_factory=dict)
    scores: Mapping[str, float] = Field(default_factory=dict)

    @property
    def merge_group(self) -> str:
        """The merge group, or the kind, which is all that older manifests say."""
        return self.group or self.kind

    def of_task(self, card: TaskCard) -> Self:
        """The manifest as it is once this card says what the task is; the id stays."""
        said = {name: getattr(card, name) for name in TaskCard.model_fields if name != "id"}
        return self.model_copy(update=said)
