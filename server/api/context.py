"""What every handler needs, in one object on the app; and the checks that several share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request

from experts.errors import ExpertError
from server.api.wire.routing import NARROWING, ROUTED_ONLY, named_experts
from server.engine.fitting import Fits
from server.engine.messages import Outcome, RoutingOptions, Sample
from server.engine.named import require_expert, require_model
from server.engine.routing import AUTO
from server.engine.service import EngineService
from server.errors import RequestError, located
from server.observability.requests import NOTES


@dataclass(frozen=True)
class Context:
    """The app's parts and limits.

    Attributes:
        adapter_roots: folders that adapters may be loaded from. timeout_ms: the deadline of a
            request that names none. started: seconds since the epoch. log_text: whether log lines
            may hold the text of requests.
    """

    service: EngineService
    fits: Fits
    adapter_roots: Sequence[Path] = ()
    max_body_bytes: int = 2**20
    timeout_ms: float | None = None
    started: int = 0
    log_text: bool = False

    @property
    def backbone_id(self) -> str:
        """The name of the bare backbone."""
        return self.service.engine.backbone.id

    def deadline(self, timeout_ms: float | None) -> float | None:
        """When a request that arrives now must be answered."""
        allowed = timeout_ms if timeout_ms is not None else self.timeout_ms
        return None if allowed is None else time.monotonic() + allowed / 1000

    def require_model(self, model: str) -> None:
        """Check that `model` can answer.

        Raises:
            UnknownModel: it is neither `auto`, nor an expert, nor the backbone.
            BadExpert: it is an expert of the library whose files cannot be served.
        """
        if model != AUTO:
            require_model(self.service.engine.library, self.backbone_id, model)

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
            for expert in sorted(named_experts(option)):
                try:
                    require_expert(self.service.engine.library, expert)
                except ExpertError as error:
                    raise located(error, place) from None

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

    def note(self, request: Request, samples: Sequence[Sample], results: Sequence[object]) -> None:
        """Add to the request's log line: how much was asked, and which experts came first."""
        traces = [r.trace for r in results if isinstance(r, Outcome)]
        first = [t.selection.experts[0].id for t in traces if t.selection.experts]
        notes: dict[str, object] = {
            "samples": len(samples),
            "tokens": sum(r.tokens for r in results if isinstance(r, Outcome)),
            "experts": list(dict.fromkeys(first))[:8],
        }
        if self.log_text:
            notes["inputs"] = list(dict.fromkeys(sample.input for sample in samples))
        request.scope[NOTES] = notes


def context(request: Request) -> Context:
    """The context of the app that serves `request`."""
    return request.app.state.context
