"""Requests as OpenTelemetry spans: one a request and one for each of its stages, by OTLP over HTTP.

Spans are made when a request has ended, from times that were measured: a stage serves the requests
of a whole batch, so no code could open one around it. Needs the extra `otel`, and is imported only
where an endpoint is set. Attributes hold names and numbers, never text of a request.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from server.engine.messages import Stage
from server.engine.timeline import Timeline
from server.observability.tracer import Ended

MOST_STAGES = 64
"""Stages shown of one request: one of many batches has many."""
MOST_EXPERTS = 8
Value = str | int | float | list[str]


class Spans:
    """Tells a collector of every request.

    Args:
        exporter: where spans go. version: of the server.
    """

    def __init__(self, exporter: SpanExporter, version: str) -> None:
        ours = Resource({"service.name": "sailplane", "service.version": version})
        # OTEL_SERVICE_NAME and the like win, as OTEL_TRACES_SAMPLER does in the provider.
        self._provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()))
        self._sender = BatchSpanProcessor(exporter)
        self._provider.add_span_processor(self._sender)
        self._tracer = self._provider.get_tracer("sailplane", version)
        self._scope, self._ids = InstrumentationScope("sailplane", version), RandomIdGenerator()
        self._propagator = TraceContextTextMapPropagator()

    def tell(self, ended: Ended, timeline: Timeline) -> str:
        """Make the spans of a request that has just ended; its trace id comes back."""
        epoch = time.time() - time.perf_counter()
        span = self._tracer.start_span(
            f"{ended.method} {ended.route}", self._caller(ended.traceparent), SpanKind.SERVER,
            start_time=_nanoseconds(epoch + ended.begun),
        )  # fmt: skip
        if span.is_recording():
            span.set_attributes({**_request(ended), **_routing(timeline)})
            if ended.status >= 500 or (ended.error and ended.status == 200):
                span.set_status(Status(StatusCode.ERROR, ended.error))
            for stage in sorted(timeline.stages, key=lambda s: s.begun)[:MOST_STAGES]:
                self._sender.on_end(self._stage(stage, span.get_span_context(), epoch))
        span.end(_nanoseconds(epoch + ended.at))
        return f"{span.get_span_context().trace_id:032x}"

    def _stage(self, stage: Stage, request: SpanContext, epoch: float) -> ReadableSpan:
        """A span that is over already: many times cheaper than to start one and end it."""
        own = SpanContext(
            request.trace_id, self._ids.generate_span_id(), is_remote=False,
            trace_flags=request.trace_flags, trace_state=request.trace_state,
        )  # fmt: skip
        return ReadableSpan(
            stage.name, own, request, self._provider.resource,
            instrumentation_scope=self._scope,
            start_time=_nanoseconds(epoch + stage.begun),
            end_time=_nanoseconds(epoch + stage.ended),
        )  # fmt: skip

    def close(self) -> None:
        """Send what waits, and stop. Blocks."""
        self._provider.shutdown()

    def _caller(self, traceparent: str | None) -> Context:
        """The span that the caller is in; what is no valid `traceparent` begins a new trace."""
        return self._propagator.extract({"traceparent": traceparent} if traceparent else {})


def open_spans(endpoint: str, version: str) -> Spans:
    """Spans that are sent to a collector's base address."""
    return Spans(OTLPSpanExporter(f"{endpoint}/v1/traces"), version)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _request(ended: Ended) -> Mapping[str, Value]:
    """By OpenTelemetry's names where it has some."""
    said: dict[str, Value] = {
        "http.request.method": ended.method, "http.route": ended.route,
        "http.response.status_code": ended.status, "sailplane.request_id": ended.id,
    }  # fmt: skip
    return {**said, "error.type": ended.error} if ended.error else said


def _routing(timeline: Timeline) -> Mapping[str, Value]:
    return dict(_facts(timeline))


def _facts(timeline: Timeline) -> Iterator[tuple[str, Value]]:
    """What the engine decided for the request's samples."""
    traces = [outcome.trace for outcome in timeline.outcomes]
    selections = [trace.selection for trace in traces]
    experts = list(dict.fromkeys(e.id for s in selections for e in s.experts))
    if traces:
        yield "sailplane.samples", len(traces)
        yield "sailplane.tokens", sum(outcome.tokens for outcome in timeline.outcomes)
        yield "sailplane.routing.modes", sorted({s.mode for s in selections})
        yield "sailplane.routing.experts", experts[:MOST_EXPERTS]
        yield (
            "sailplane.queue_seconds",
            sum(s.ended - s.begun for s in timeline.stages if s.name == "queue"),
        )
    if confidences := [t.confidence for t in traces if t.confidence is not None]:
        yield "sailplane.routing.confidence", min(confidences)
    if falls := sorted({t.fallback for t in traces if t.fallback}):
        yield "sailplane.routing.fallbacks", falls
    if timeline.first_at is not None:
        yield "sailplane.generated_tokens", timeline.tokens
