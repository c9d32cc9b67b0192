"""What every handler needs, in one object on the app; and the checks that several share."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fastapi import Request

from experts.errors import ExpertError
from experts.scope import EVERYTHING, Scope
from experts.snapshot import Snapshot
from routers.types import Selection
from server.access.caller import ANYONE, Caller, caller_of
from server.access.rules import TRACE
from server.api.bounds import DEFAULT_BOUNDS, Bounds
from server.api.looking import Looking
from server.api.scope import scope_of
from server.api.wire.routing import (
    NARROWING,
    ROUTED_ONLY,
    Routing,
    asks_trace,
    named_experts,
    narrowed_to,
)
from server.engine.fitting import Fits
from server.engine.messages import Outcome, RoutingOptions, Sample
from server.engine.named import reached, require_expert, require_model
from server.engine.routing import AUTO
from server.engine.service import EngineService
from server.errors import NoRoutingLog, NotAllowed, RequestError, located
from server.evidence.lines import Served
from server.evidence.writer import RoutingLog
from server.observability.requests import NOTES, WATCHED

MOST_WHOLE = 8
"""Traces of all tokens in one response: each may have megabytes."""


@dataclass(frozen=True)
class Answered:
    """What a request is answered with: the response's body, and what it was made from.

    `read` counts the tokens of prompts, where it is not what routing read; `written` those of text.
    """

    body: Mapping[str, object]
    samples: Sequence[Sample]
    results: Sequence[object]
    written: int = 0
    read: int | None = None


@dataclass(frozen=True)
class Context:
    """The app's parts and limits.

    Attributes:
        bounds: of one request. adapter_roots: folders that adapters may be loaded from. started:
            seconds since the epoch. log_text: whether log lines may hold the text of requests.
            routing_log: where every answer is noted, None where the operator keeps no such log.
            scope: the experts that the caller may use. caller: who asks. looking: where slow
            work is done that looks at the library.
    """

    service: EngineService
    fits: Fits
    bounds: Bounds = DEFAULT_BOUNDS
    adapter_roots: Sequence[Path] = ()
    started: int = 0
    log_text: bool = False
    routing_log: RoutingLog | None = None
    scope: Scope = EVERYTHING
    caller: Caller = ANYONE
    looking: Looking = field(default_factory=Looking)

    @property
    def seen(self) -> Snapshot:
        """The library as the caller sees it: nothing else is told to it."""
        return self.service.engine.library.snapshot.within(self.scope)

    @property
    def backbone_id(self) -> str:
        """The name of the bare backbone."""
        return self.service.engine.backbone.id

    def deadline(self, timeout_ms: float | None) -> float | None:
        """When a request that arrives now must be answered."""
        allowed = timeout_ms if timeout_ms is not None else self.bounds.timeout_ms
        return None if allowed is None else time.monotonic() + allowed / 1000

    def writing_deadline(self, timeout_ms: float | None) -> float | None:
        """When the last token of a text must have come that is asked for now."""
        return self.deadline(self.bounds.write_timeout_ms if timeout_ms is None else timeout_ms)

    def require_model(self, model: str) -> None:
        """Check that `model` can answer.

        Raises:
            UnknownModel: it is neither `auto`, nor an expert, nor the backbone.
            BadExpert: it is an expert of the library whose files cannot be served.
        """
        if model != AUTO:
            require_model(self.seen, self.backbone_id, model)

    def require_options(
        self, model: str, options: Sequence[RoutingOptions], places: Sequence[str] = ("routing",)
    ) -> None:
        """Check the names in `routing`, and that they do not contradict `model`.

        Args:
            places: the path of each one's options in the request.

        Raises:
            RequestError: `model` says already who answers, or there is no such router.
            UnknownExpert, BadExpert: a named expert cannot be served.
        """
        shared = {id(o): (o, place) for o, place in zip(options, places, strict=True)}
        for option, place in shared.values():
            asked = [name for name in ROUTED_ONLY if getattr(option, name)]
            if model != AUTO and asked:
                raise RequestError(
                    f"{place}.{asked[0]} needs model 'auto': {model!r} says already who answers.",
                    param=f"{place}.{asked[0]}",
                )
            self._require_router(option, place)
            seen = self.seen
            try:
                for expert in sorted(named_experts(option)):
                    require_expert(seen, expert)
                for name in sorted(narrowed_to(option)):
                    reached(seen, name)
            except ExpertError as error:
                raise located(error, place) from None

    def traced(
        self, routing: Routing, options: Sequence[RoutingOptions], prompts: int = 1
    ) -> Sequence[RoutingOptions]:
        """The options of a request as far as its caller may see traces.

        Args:
            prompts: to which the options apply.

        Raises:
            NotAllowed: it asks for one, and may not.
            RequestError: it asks for all tokens of too many.
        """
        if sum(option.trace == "tokens" for option in options) * prompts > MOST_WHOLE:
            raise RequestError(
                f"Traces of all tokens are told of {MOST_WHOLE} questions or prompts of a request "
                "at most; ask the others for trace 'full'.",
                param="routing.trace",
            )
        if self.caller.may(TRACE):
            return options
        if asks_trace(routing):
            raise NotAllowed(
                f"This key lacks the permission {TRACE!r}; leave routing.trace out.",
                param="routing.trace",
            )
        hidden = {id(option): replace(option, trace="none") for option in options}
        return [hidden[id(option)] for option in options]

    def told(self, selection: Selection) -> Selection:
        """A selection as far as its caller may see it: all that counts when it is sent back."""
        if self.caller.may(TRACE):
            return selection
        experts = tuple(e.model_copy(update={"score": 0.0}) for e in selection.experts)
        return selection.model_copy(update={"experts": experts, "reason": ""})

    def _require_router(self, option: RoutingOptions, place: str) -> None:
        presets = self.service.engine.presets
        name = option.router or "default"
        if name not in presets:
            known = ", ".join(presets)
            raise RequestError(f"No router {name!r}; there are {known}.", param=f"{place}.router")
        idle = [n for n in (*NARROWING, "instruction") if getattr(option, n)]
        if presets[name].request is None and idle and not (option.experts or option.selection):
            raise RequestError(
                f"{place}.{idle[0]} has no effect: router {name!r} takes the bare backbone.",
                param=f"{place}.{idle[0]}",
            )

    def require_routing_log(self) -> RoutingLog:
        """The routing log.

        Raises:
            NoRoutingLog: there is none.
        """
        if self.routing_log is None:
            raise NoRoutingLog(
                "This server keeps no routing log; start it with --routing-log FILE."
            )
        return self.routing_log

    def note(self, request: Request, answered: Answered) -> None:
        """Add to the request's log line: how much was asked, and which experts came first.

        Each sample's routing goes to the routing log, where there is one.
        """
        samples, results = answered.samples, answered.results
        if self.routing_log is not None:
            watched = request.scope[WATCHED]
            served = Served(
                watched.id.decode(), round(time.time(), 3), watched.milliseconds, samples, results
            )
            self.routing_log.write(served.lines, self.scope)
        traces = [r.trace for r in results if isinstance(r, Outcome)]
        first = [t.selection.experts[0].id for t in traces if t.selection.experts]
        routed = sum(r.tokens for r in results if isinstance(r, Outcome))
        notes: dict[str, object] = {
            "samples": len(samples),
            "tokens": routed if answered.read is None else answered.read,
            "experts": list(dict.fromkeys(first))[:8],
        }
        if answered.written:
            notes["written"] = answered.written
        if self.log_text:
            notes["inputs"] = list(dict.fromkeys(sample.input for sample in samples))
        request.scope[NOTES] = notes


def context(request: Request) -> Context:
    """The context of the app that serves `request`, for its caller.

    Raises:
        RequestError: the request says in no valid way what the caller may use.
    """
    scope, caller, shared = scope_of(request), caller_of(request.scope), app_context(request)
    if caller is ANYONE and not scope.limited:
        return shared
    return replace(shared, scope=scope, caller=caller)


def app_context(request: Request) -> Context:
    """The same for whoever calls: of use where nothing of the library is told."""
    return request.app.state.context
