"""Every route of the server, and what it needs: a new one must be thought about here."""

from __future__ import annotations

import pytest

from server.access.rules import is_page, needed
from server.app import ROUTES, routed_app

EXPECTED = {
    None: {"GET /health", "HEAD /health", "GET /ready", "HEAD /ready"},
    "metrics": {"GET /metrics"},
    "route:trace": {"POST /v1/route", "POST /v1/map"},
    "infer": {
        "POST /v1/decisions", "POST /v1/chat/completions", "POST /v1/completions",
        "POST /v1/embeddings", "POST /v1/feedback", "GET /v1/models", "GET /v1/models/{model}",
        "GET /v1/experts", "GET /v1/experts/{id}", "GET /v1/aliases", "GET /v1/routers",
        "GET /v1/map", "GET /docs", "GET /openapi.json",
    },
    "admin": {
        "POST /v1/experts", "POST /v1/experts/scan", "PUT /v1/experts/{id}",
        "POST /v1/experts/{id}/rollback", "DELETE /v1/experts/{id}", "PUT /v1/aliases/{name}",
        "DELETE /v1/aliases/{name}", "POST /v1/load_lora_adapter", "POST /v1/unload_lora_adapter",
        "GET /v1/requests",
    },
}  # fmt: skip


def test_every_route_needs_what_is_said_here():
    own = {f"{method} {r.path}" for r in ROUTES for method in r.methods}
    pages = {"GET /docs", "GET /openapi.json"}
    assert own | pages == {route for routes in EXPECTED.values() for route in routes}
    for permission, named in EXPECTED.items():
        for method, path in (route.split() for route in named):
            assert needed(method, path) == permission, (method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "//"), ("GET", "/nothing"), ("POST", "/health/"), ("GET", "/metrics/"),
        ("GET", "//v1/models"), ("GET", "/v1/modelsx"), ("PATCH", "/v1/decisions"),
        ("DELETE", "/v1/models/auto"), ("GET", "/v1/../metrics"), ("GET", "/HEALTH"),
        ("POST", "/v1/experts/weather"), ("HEAD", "/v1/experts"),
    ],
)  # fmt: skip
def test_what_is_not_named_is_closed(method, path):
    assert needed(method, path) == "admin"


@pytest.mark.parametrize("path", ["/console", "/console/", "/console/_nicegui/3/static/x.js"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_the_page_is_open_and_holds_nothing(method, path):
    assert needed(method, path) is None
    assert is_page(path)


@pytest.mark.parametrize("path", ["/consoles", "/Console", "/v1/console", "//console"])
def test_what_looks_like_the_page_is_closed(path):
    assert needed("GET", path) == "admin"
    assert not is_page(path)


def test_the_bare_address_only_says_where_the_page_is():
    assert needed("GET", "/") is None
    assert not is_page("/")


def test_the_document_asks_for_a_key_wherever_one_is_needed():
    for path, methods in routed_app().openapi()["paths"].items():
        for method, told in methods.items():
            assert bool(told.get("security")) == (needed(method.upper(), path) is not None), path
