"""What every handler needs, in one object on the app; and the checks that several share."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request

from experts.errors import BadExpert, UnknownExpert
from server.api.wire.routing import ROUTED_ONLY, named_experts
from server.engine.messages import Outcome, RoutingOptions, Sample
from server.engine.service import EngineService
from server.errors import RequestError, UnknownModel
from server.observability.requests import NOTES

AUTO = "auto"


@dataclass(frozen=True)
class Context:
    """The app's parts and limits.

    Attributes:
        adapter_roots: folders that adapters may be loaded from. timeout_ms: the deadline of a
            request that names none. started: seconds since the epoch. log_text: whether log lines
            may hold the text of requests.
    """

    service: EngineService
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
        if model != AUTO and model != self.backbone_id:
            self._require_expert(model, UnknownModel(f"No model {model!r}.", param="model"))

    def require_options(self, model: str, options: Iterable[RoutingOptions]) -> None:
        """Check the names in `routing`, and that they do not contradict `model`.

        Raises:
            RequestError: `model` says already who answers, or there is no such router.
            UnknownExpert, BadExpert: a named expert cannot be served.
        """
        for option in {id(o): o for o in options}.values():
            asked = [name for name in ROUTED_ONLY if getattr(option, name)]
            if model != AUTO and asked:
                raise RequestError(
                    f"routing.{asked[0]} needs model 'auto': {model!r} says already who answers.",
                    param=f"routing.{asked[0]}",
                )
            if option.router is not None and option.router not in self.service.engine.presets:
                known = ", ".join(self.service.engine.presets)
                raise RequestError(
                    f"No router {option.router!r}; there are {known}.", param="routing.router"
                )
            for expert in named_experts(option):
                self._require_expert(expert, UnknownExpert(f"No expert {expert!r}."))

    def _require_expert(self, id: str, unknown: Exception) -> None:
        library = self.service.engine.library
        if id in library.entries:
            return
        if id in library.bad:
            raise BadExpert(f"Expert {id!r} cannot be served: {library.bad[id]}")
        raise unknown

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
