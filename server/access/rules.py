"""What a request needs, by its method and path: the one table, closed by default.

A path that is not named here, an unknown one too, is for administrators.
"""

from __future__ import annotations

from server.access.keys import Permission

OPEN = frozenset({"/", "/health", "/ready"})
"""Answered without a key; the first only says where the page is."""
PAGE = "/console"
"""The web page, and all below it: it holds nothing, and asks by the key of who looks."""
INFER: Permission = "infer"
TRACE: Permission = "route:trace"
METRICS: Permission = "metrics"
ADMIN: Permission = "admin"

EXACT: dict[tuple[str, str], Permission] = {
    ("POST", "/v1/decisions"): INFER,
    ("POST", "/v1/chat/completions"): INFER,
    ("POST", "/v1/completions"): INFER,
    ("POST", "/v1/embeddings"): INFER,
    ("POST", "/v1/feedback"): INFER,
    ("POST", "/v1/route"): TRACE,
    ("POST", "/v1/map"): TRACE,
    ("GET", "/metrics"): METRICS,
    ("GET", "/docs"): INFER,
    ("GET", "/openapi.json"): INFER,
}
READ = ("/v1/models", "/v1/experts", "/v1/aliases", "/v1/routers", "/v1/map")
"""Whoever may ask an expert may look at what there is."""


def is_page(path: str) -> bool:
    """Whether a path is the console's, or of what it is made of."""
    return path == PAGE or path.startswith(f"{PAGE}/")


def needed(method: str, path: str) -> Permission | None:
    """The permission that a request needs; None where it needs no key."""
    if path in OPEN or is_page(path):
        return None
    if (found := EXACT.get((method, path))) is not None:
        return found
    if method == "GET" and any(path == p or path.startswith(f"{p}/") for p in READ):
        return INFER
    return ADMIN
