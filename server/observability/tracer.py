"""What a tracer is told of each request, and how one is opened. Imports no tracing library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from server.engine.timeline import Timeline
from server.settings import SettingsError


@dataclass(frozen=True)
class Ended:
    """A request that has been answered; `begun` and `at` are of `time.perf_counter`."""

    id: str
    method: str
    route: str
    status: int
    error: str | None
    traceparent: str | None
    begun: float
    at: float


class Tracer(Protocol):
    """Shows requests to somebody; `server.observability.spans.Spans` is one."""

    def tell(self, ended: Ended, timeline: Timeline) -> str:
        """Take a request and its stages; the id of its trace comes back."""
        ...

    def close(self) -> None:
        """Hand on what waits. Blocks."""
        ...


def open_tracer(endpoint: str | None, version: str) -> Tracer | None:
    """What sends spans to a collector, if one is named.

    Raises:
        SettingsError: the libraries for it are not installed.
    """
    if endpoint is None:
        return None
    try:
        from server.observability.spans import open_spans  # imports OpenTelemetry: only if asked
    except ImportError as error:
        raise SettingsError(
            f"otlp_endpoint = {endpoint!r}: expected the extra 'otel' to be installed: "
            f"pip install 'sailplane[otel]' ({error})"
        ) from None
    return open_spans(endpoint, version)
