"""A stand-in for an OpenTelemetry collector: a real HTTP server that decodes what is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector:
    """What has been received."""

    address: str = ""
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)

    @property
    def resources(self) -> list[dict[str, object]]:
        return [values(group.resource) for said in self.requests for group in said.resource_spans]

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for said in self.requests
            for group in said.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]

    def roots(self) -> list[Span]:
        return [span for span in self.spans if span.kind == Span.SPAN_KIND_SERVER]

    def children(self, of: Span) -> list[Span]:
        found = [span for span in self.spans if span.parent_span_id == of.span_id]
        return sorted(found, key=lambda span: (span.start_time_unix_nano, span.end_time_unix_nano))


def values(said) -> dict[str, object]:
    found: dict[str, object] = {}
    for pair in said.attributes:
        value = getattr(pair.value, pair.value.WhichOneof("value"))
        is_list = hasattr(value, "values")
        found[pair.key] = [each.string_value for each in value.values] if is_list else value
    return found


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector at an address of its own, while the context lasts."""
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *said):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found.address = f"http://127.0.0.1:{server.server_port}"
        yield found
        server.shutdown()
