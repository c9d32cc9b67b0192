"""The `routing` object of a request: the caller's wishes on who answers, as engine options.

One object serves all questions; `routing.questions` overrides some of them: either an object by
the question's index as a string (`{"3": {...}}`), or a list as long as the questions, with null
where nothing changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from routers.types import MAX_STRENGTH, Selection
from server.api.wire.base import Text, Wire, invalid, shape_of
from server.engine.messages import RoutingOptions, TraceLevel
from server.errors import RequestError

MAX_EXPERTS = 1024  # checking a list without a bound would block the event loop
Weight = Annotated[float, Field(ge=0, le=MAX_STRENGTH, allow_inf_nan=False)]
Ids = Annotated[tuple[str, ...], Field(max_length=MAX_EXPERTS)]
SOURCES = ("router", "experts", "selection")
"""Three ways to say who answers; a request names one of them at most."""
NARROWING = ("top_k", "mode", "allow", "deny")
"""What narrows a router's choice."""
ROUTED_ONLY = (*SOURCES, *NARROWING, "instruction")
"""What means something only where the server routes."""


class Routing(Wire):
    """Wishes for one question; what is absent is the server's default.

    Attributes:
        router: a preset's name. experts: weights by id, `id@version` or alias. top_k: experts kept.
        mode: merge or token. instruction: used as it stands. truncate: cut over-long input.
        allow, deny: names of experts, and `tag:<name>` for all that carry a tag; deny wins.
        selection: from an earlier response, used unchanged. trace: how much to return.
    """

    router: Text | None = None
    experts: Annotated[dict[str, Weight], Field(min_length=1, max_length=MAX_EXPERTS)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    mode: Literal["merge", "token"] | None = None
    instruction: Text | None = None
    allow: Annotated[Ids, Field(min_length=1)] | None = None
    deny: Ids = ()
    truncate: bool = False
    selection: Selection | None = None
    trace: TraceLevel = "summary"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        named = [name for name in SOURCES if getattr(self, name) is not None]
        if len(named) > 1:
            raise invalid(f"{' and '.join(named)} exclude each other")
        if idle := sorted(self.model_fields_set & self._idle()):
            raise invalid(f"{', '.join(idle)}: no effect, since {named[0]} says who answers")
        if self.experts and not any(self.experts.values()):
            raise invalid("experts: at least one weight must be above 0")
        if self.experts and sum(self.experts.values()) > MAX_STRENGTH:
            raise invalid(f"experts: weights may sum to {MAX_STRENGTH:g}")
        return self

    def _idle(self) -> frozenset[str]:
        """What would be accepted and ignored beside what the caller named."""
        if self.selection is not None:
            return frozenset({*NARROWING, "instruction"})
        if self.experts is None:
            return frozenset()
        # Token mode reads mode and top_k, which is then per token.
        tokens = {"mode", "top_k"} if self.mode == "token" else {"mode"}
        return frozenset({*NARROWING, "instruction"} - tokens)

    def values(self) -> dict[str, object]:
        """What the caller set."""
        return {name: getattr(self, name) for name in self.model_fields_set & ENGINE_FIELDS}

    def to_options(self) -> RoutingOptions:
        """For the engine."""
        return RoutingOptions(**self.values())  # type: ignore[arg-type]


ENGINE_FIELDS = frozenset(Routing.model_fields)


class TimedRouting(Routing):
    """Wishes for a whole request, and its deadline in milliseconds from arrival."""

    timeout_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


Overrides = Annotated[
    Annotated[dict[str, Routing], Tag("<object>")] | Annotated[list[Routing | None], Tag("<list>")],
    Discriminator(
        shape_of((dict, "<object>"), (list, "<list>")),
        custom_error_type="object_or_list",
        custom_error_message="must be an object by question index, or a list",
    ),
]


class RequestRouting(TimedRouting):
    """Wishes for all questions, with overrides."""

    questions: Overrides | None = None

    def overrides(self, count: int) -> Mapping[int, Routing]:
        """Overrides by question index.

        Raises:
            RequestError: a key is no index of a question, or a list has another length.
        """
        if isinstance(self.questions, list):
            if len(self.questions) != count:
                raise RequestError(
                    f"routing.questions has {len(self.questions)} entries for {count} questions.",
                    param="routing.questions",
                )
            return {i: o for i, o in enumerate(self.questions) if o is not None}
        known = {str(i): i for i in range(count)}
        for key in self.questions or {}:
            if key not in known:
                raise RequestError(
                    f"routing.questions: {key!r} is not the index of a question.",
                    param=f"routing.questions.{key}",
                )
        return {known[key]: override for key, override in (self.questions or {}).items()}


NO_WISHES = RequestRouting()
DEFAULT_OPTIONS = RoutingOptions()


def options_per_question(routing: RequestRouting, count: int) -> list[RoutingOptions]:
    """One set of options per question; questions without an override share one object."""
    if routing is NO_WISHES:
        return [DEFAULT_OPTIONS] * count
    base = routing.values()
    options = [RoutingOptions(**base)] * count  # type: ignore[arg-type]
    for i, override in routing.overrides(count).items():
        options[i] = RoutingOptions(**_overridden(base, override.values()))  # type: ignore[arg-type]
    return options


def places(routing: RequestRouting, count: int) -> list[str]:
    """Where each question's options stand in the request, for errors."""
    own = routing.overrides(count)
    return [f"routing.questions[{i}]" if i in own else "routing" for i in range(count)]


def _overridden(base: Mapping[str, object], override: Mapping[str, object]) -> dict[str, object]:
    """`override` over `base`. Naming who answers replaces the other ways of naming it."""
    dropped = set(SOURCES) if any(name in override for name in SOURCES) else set()
    if "selection" in override or "experts" in override:
        dropped |= set(ROUTED_ONLY)
    return {k: v for k, v in base.items() if k not in dropped} | dict(override)


def asks_trace(routing: Routing) -> bool:
    """Whether a request says itself that it wants a trace, of any question."""
    told = getattr(routing, "questions", None) or ()
    each = [routing, *(told.values() if isinstance(told, dict) else told)]
    return any("trace" in r.model_fields_set and r.trace != "none" for r in each if r is not None)


def named_experts(options: RoutingOptions) -> set[str]:
    """Every name of an expert that is to answer."""
    return {*(options.experts or ()), *(options.selection.ids if options.selection else ())}


def narrowed_to(options: RoutingOptions) -> set[str]:
    """Every name of experts that a router may choose, or may not."""
    return {*(options.allow or ()), *options.deny}
