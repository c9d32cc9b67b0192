"""What goes into the engine and what comes out: plain frozen data, no HTTP and no tensors.

A `Sample` is one question about one input, or one text to embed. A request may hold many. Only
`Shared` changes: the engine notes there what one sample was given, for those that come later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from experts.errors import ExpertError
from experts.scope import EVERYTHING, Scope
from routers.instructions import Instruction
from routers.types import Selection
from server.errors import ServerError

TraceLevel = Literal["none", "summary", "full", "tokens"]
"""How much is told: each level what the former tells, and more."""


@dataclass(frozen=True)
class Choice:
    """One option: `value` may be a string or a boolean."""

    value: str | bool
    description: str | None = None

    @property
    def text(self) -> str:
        """What is embedded: `value`, or `value: description`."""
        return str(self.value) if not self.description else f"{self.value}: {self.description}"


@dataclass(frozen=True)
class Question:
    """A predicate (no choices), a choice (none: the expert's own label set) or a score (levels)."""

    type: Literal["predicate", "choice", "score"]
    instructions: str = ""
    choices: tuple[Choice, ...] = ()
    name: str | None = None


@dataclass(frozen=True)
class RoutingOptions:
    """The caller's wishes on routing; None means the server's default.

    Attributes:
        router: a preset name. experts: explicit weights by id, reference or alias. allow, deny: the
            same names, and tags as `tag:<name>`. sees: what the request router may
            look at (evaluation only): "input", "choices" (with the input), "instruction" (with the
            input), "all".
    """

    router: str | None = None
    experts: Mapping[str, float] | None = None
    top_k: int | None = None
    mode: Literal["merge", "token"] | None = None
    instruction: str | None = None
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    truncate: bool = False
    selection: Selection | None = None
    trace: TraceLevel = "summary"
    sees: Literal["input", "choices", "instruction", "all"] = "all"

    @property
    def listens(self) -> bool:
        """Whether the trace tells what tokens chose."""
        return self.trace in ("full", "tokens")


@dataclass(eq=False, slots=True)
class Shared:
    """One selection for many samples: the first of them is routed, the others take what it gets.

    Attributes:
        selection: that one, once it is decided; error: why there is none. by: the sample that was
            routed.
    """

    selection: Selection | None = None
    error: ExpertError | ServerError | None = None
    by: Sample | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Sample:
    """One unit of work. `question` None asks for the routed embedding of the input.

    `model` is "auto", an expert id, or the backbone's id. `predict` False stops after routing.
    `scope` is what the caller may use: for it nothing else is there.
    `record` is what has been read and written (token ids): such a sample asks for nothing but the
    token trace of it. `written` is the instruction a writer made before the sample was queued, in
    `writing_ms`. `shared` is held by all samples that take one selection.
    """

    input: str
    question: Question | None = None
    model: str = "auto"
    options: RoutingOptions = field(default_factory=RoutingOptions)
    predict: bool = True
    scope: Scope = EVERYTHING
    written: Instruction | None = None
    writing_ms: float = 0.0
    record: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    shared: Shared | None = None

    @property
    def leads(self) -> bool:
        """Whether it is the one that is routed for all that share its selection."""
        shared = self.shared
        return shared is not None and (shared.by is None or shared.by is self)

    @property
    def taken(self) -> Selection | None:
        """The selection of another sample that is this one's, too, where it is decided already."""
        return None if self.shared is None or self.leads else self.shared.selection


@dataclass(frozen=True)
class CandidateTrace:
    """One candidate of the request router, as the trace shows it."""

    id: str
    score: float
    views: Mapping[str, float]
    """The score's parts: instruction, choices, labels, input, density."""
    version: int = 1


@dataclass(frozen=True)
class Cut:
    """A text that was too long: the field it stood in, its tokens, and how many were read."""

    part: str
    sent: int
    kept: int


@dataclass(frozen=True)
class TokenTrace:
    """Token mode: the experts one site used.

    `experts` maps id to its mean weight over tokens; `tokens` holds (position, expert, weight) of
    the best expert for the first tokens. With the level "tokens", `weights` maps id to its weight
    at every token that the site saw, the first of which is number `first` of `Trace.spelled`.
    """

    site: str
    experts: Mapping[str, float]
    tokens: tuple[tuple[int, str, float], ...] = ()
    weights: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    first: int = 0


@dataclass(frozen=True)
class Trace:
    """Why these experts answered.

    Attributes:
        generation: the state of the library that was looked at.
        instruction: the instruction used. writer: "caller" | "template" | "openai" | "none".
        writer_note: why another writer took over, if one did.
        calibration: version of the library's constants. calibration_note: what is wrong with them.
        alpha: the global rule's alpha.
        narrowed: a preset that wants all experts got fewer.
        fallback: code of why no expert answered, or none surely fits.
        dropped: experts left out, with the reason. replaced: those that were chosen and could not
            be loaded. truncated: what was cut.
        confidence: how probably the first expert is the query's own, where the preset tells.
        top_score: the best of the request router's scores, also where no candidates are told.
        tokens: what each site's tokens chose, in token mode. spelled: how each token reads, what
            was read and then what was written, at the level "tokens". written: how many of them
            were.
    """

    router: str
    selection: Selection
    generation: str = ""
    instruction: str = ""
    writer: str = "none"
    writer_note: str | None = None
    candidates: tuple[CandidateTrace, ...] = ()
    calibration: str | None = None
    calibration_note: str | None = None
    alpha: float | None = None
    confidence: float | None = None
    top_score: float | None = None
    narrowed: bool = False
    fallback: str | None = None
    dropped: Mapping[str, str] = field(default_factory=dict)
    replaced: tuple[str, ...] = ()
    truncated: tuple[Cut, ...] = ()
    tokens: tuple[TokenTrace, ...] = ()
    spelled: tuple[str, ...] = ()
    written: int = 0
    cache: Mapping[str, int] = field(default_factory=dict)
    milliseconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What the experts said.

    Attributes:
        probabilities: one per choice or level, summing to 1; for a predicate (p(true),).
        choices: the options the probabilities are of. logprobs: of a backbone that writes, the mean
            logarithmic probability a token of each.
        embedding: the adapted vector, for an embedding sample.
        refusal: why this question cannot be answered, in place of all that.
    """

    probabilities: tuple[float, ...] = ()
    choices: tuple[Choice, ...] = ()
    logprobs: tuple[float, ...] = ()
    embedding: tuple[float, ...] | None = None
    refusal: str | None = None

    @property
    def best(self) -> int | None:
        """Place of the most probable choice or level; None where nothing was chosen."""
        p = self.probabilities
        return max(range(len(p)), key=p.__getitem__, default=None)


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of work on a batch, on the clock of `time.perf_counter`."""

    name: str
    begun: float
    ended: float


@dataclass(frozen=True)
class Outcome:
    """The answer to one sample (None when only routing was asked), its trace and token count.

    `stages` are those of its batch, in order; samples of one batch share the tuple.
    """

    answer: Answer | None
    trace: Trace
    tokens: int
    stages: tuple[Stage, ...] = field(default=(), compare=False, repr=False)
