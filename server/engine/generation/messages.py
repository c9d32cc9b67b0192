"""What generation is asked for and what it says: plain frozen data, no HTTP and no tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from experts.scope import EVERYTHING, Scope
from routers.types import Selection

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen, and when a text ends.

    Attributes:
        max_tokens: most tokens that are written. temperature: 0 takes the likeliest token.
            top_p, top_k, min_p: which tokens may be drawn (Holtzman et al. 2020; Fan et al. 2018;
            Nguyen et al. 2024); 1, 0 and 0 leave all. seed: makes draws repeatable.
        presence_penalty, frequency_penalty: taken off the logits of tokens written so far, once and
            per time. repetition_penalty: logits of tokens read or written are divided by it where
            positive, multiplied where not (Keskar et al. 2019).
        logit_bias: added to a token's logit. stop: texts that end the answer, and are left out of
            it. stop_tokens: tokens that do. min_tokens: no end before so many.
        ignore_eos: go on after the model's own end. logprobs: how many alternatives to tell of for
            each token; None tells nothing.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    stop_tokens: frozenset[int] = frozenset()
    min_tokens: int = 0
    ignore_eos: bool = False
    logprobs: int | None = None


@dataclass(frozen=True)
class Prompt:
    """One prompt, who answers it, and how.

    Attributes:
        tokens: what is read. count: texts to write, each drawn on its own. first: the index of the
            first of them among its caller's. scope: what the caller may use; prompts of others
            tell it nothing. listens: whether to tell who writes each token.
    """

    tokens: tuple[int, ...]
    selection: Selection
    sampling: Sampling
    count: int = 1
    first: int = 0
    scope: Scope = EVERYTHING
    listens: bool = False


@dataclass(frozen=True)
class Written:
    """One token: its id and its logarithmic probability, with the likeliest alternatives.

    Both are of the model's own distribution, before temperature and penalties. `experts` is the
    mean over sites of what each expert weighed in the pass that chose it, where that is told.
    """

    token: int
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()
    experts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Piece:
    """What is new of one text. Text may come later than its tokens, where characters or stops span.

    Attributes:
        index: which of the caller's texts. finish: why it ended, with its last piece.
    """

    index: int
    text: str
    tokens: tuple[Written, ...] = ()
    finish: Finish | None = None
