"""What requests for text have in common: how tokens are chosen, when a text ends, how it is sent.

OpenAI's fields, and those that engines commonly add to them (`top_k`, `min_p`, `min_tokens`,
`repetition_penalty`, `stop_token_ids`, `ignore_eos`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from server.api.wire.base import Nullable, Wire, invalid
from server.api.wire.routing import TimedRouting
from server.engine.generation.messages import Sampling

MAX_TEXTS = 128
MAX_STOPS, MAX_STOP_LENGTH = 16, 1024
MAX_BIASES = 1024
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
TokenId = Annotated[int, Field(ge=0)]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _not_empty(stops: tuple[str, ...]) -> tuple[str, ...]:
    if any(not stop or len(stop) > MAX_STOP_LENGTH for stop in stops):
        raise invalid(f"a stop text has 1 to {MAX_STOP_LENGTH} characters")
    return stops


Stops = Annotated[
    tuple[str, ...], BeforeValidator(_as_list), Field(max_length=MAX_STOPS),
    AfterValidator(_not_empty),
]  # fmt: skip
Biases = Annotated[
    dict[TokenId, Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]],
    Field(max_length=MAX_BIASES),
]


ALIKE = (
    "frequency_penalty", "presence_penalty", "seed", "stop", "temperature", "top_p", "min_p",
    "repetition_penalty", "min_tokens", "ignore_eos", "logit_bias",
)  # fmt: skip
"""Fields that the engine has under the same name."""


class StreamOptions(Wire):
    """`include_usage`: a last chunk tells how many tokens there were."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class SamplingRequest(Nullable):
    """Fields of both routes."""

    model: str = Field(description="`auto`, an expert's id, or the backbone's id.")
    routing: TimedRouting = TimedRouting()
    frequency_penalty: Penalty | None = None
    logit_bias: Biases | None = None
    n: Annotated[int, Field(ge=1, le=MAX_TEXTS)] | None = None
    presence_penalty: Penalty | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stops | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = Field(
        None, description="Draw among so many likeliest tokens; 0 and -1 are all."
    )
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    stop_token_ids: Annotated[tuple[TokenId, ...], Field(max_length=MAX_STOPS)] | None = None
    ignore_eos: bool | None = None
    user: str | None = Field(None, description="Has no effect.")
    safety_identifier: str | None = Field(None, description="Has no effect.")
    prompt_cache_key: str | None = Field(None, description="Has no effect.")
    service_tier: Literal["auto", "default"] | None = None
    store: Literal[False] | None = None

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise invalid("stream_options needs stream: true")
        return self

    def sampling(self, max_tokens: int, logprobs: int | None) -> Sampling:
        """For the engine."""
        said: dict[str, Any] = {name: value for name in ALIKE
                                if (value := getattr(self, name)) is not None}  # fmt: skip
        return Sampling(
            max_tokens=max_tokens, logprobs=logprobs, top_k=max(0, self.top_k or 0),
            stop_tokens=frozenset(self.stop_token_ids or ()), **said,
        )  # fmt: skip

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with a chunk of counts."""
        return self.stream_options is not None and self.stream_options.include_usage
