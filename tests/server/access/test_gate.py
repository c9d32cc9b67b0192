"""A server with keys: who is let in, who is refused and how, and what is told of it."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from server.access.keyfile import read_keys, write_keys
from server.access.keys import make_key
from server.app import ROUTES as APP_ROUTES
from tests.server.access.test_rules import EXPECTED

pytestmark = pytest.mark.anyio
ROUTES = [f"{method} {route.path}" for route in APP_ROUTES for method in route.methods]


def filled(path: str) -> str:
    for name in ("{id}", "{name}", "{model}"):
        path = path.replace(name, "nobody")
    return path


@pytest.mark.parametrize("route", ROUTES)
async def test_every_route_is_closed_without_a_key_but_the_open_ones(keyed, route):
    method, path = route.split()
    for headers in ({}, {"Authorization": "Bearer sp-nobody"}, {"Authorization": "Basic eDp5"}):
        response = await keyed.client.request(method, filled(path), headers=headers)
        if route in EXPECTED[None]:
            assert response.status_code == 200
        else:
            assert response.status_code == 401, route
            assert response.json()["error"]["code"] == "invalid_api_key"
            assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/nothing", "/v1/models/"])
async def test_pages_and_unknown_paths_are_closed_too(keyed, path):
    assert (await keyed.client.get(path)).status_code == 401


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("sort", ["plain", "tracing", "scraper"])
async def test_a_key_is_refused_what_it_lacks_and_only_that(keyed, route, sort):
    method, path = route.split()
    has = {p for p in ("infer", "route:trace", "metrics") if route in EXPECTED[p]}
    allowed = {"plain": {"infer"}, "tracing": {"infer", "route:trace"}, "scraper": {"metrics"}}
    response = await keyed(sort, method, filled(path))
    if route in EXPECTED[None] or has & allowed[sort]:
        assert response.status_code not in (401, 403)
    else:
        assert response.status_code == 403
        assert response.json()["error"]["code"] == "not_allowed"


async def test_a_trace_needs_its_permission(keyed, decision):
    silent = await keyed("plain", "POST", "/v1/decisions", json=decision)
    assert silent.json()["routing"] == {"questions": [None]}
    told = await keyed("tracing", "POST", "/v1/decisions", json=decision)
    assert told.json()["routing"]["questions"][0]["selection"]["experts"]
    for routing in (
        {"trace": "full"},
        {"questions": [{"trace": "summary"}]},
        {"questions": {"0": {"trace": "summary"}}},
    ):
        asked = {**decision, "routing": routing}
        refused = await keyed("plain", "POST", "/v1/decisions", json=asked)
        assert refused.status_code == 403
        assert refused.json()["error"]["param"] == "routing.trace"
    none = {**decision, "routing": {"trace": "none"}}
    assert (await keyed("plain", "POST", "/v1/decisions", json=none)).status_code == 200
    embedded = await keyed("plain", "POST", "/v1/embeddings", json={"model": "auto", "input": "a"})
    assert embedded.json()["routing"]["trace"] is None


async def test_without_that_permission_a_selection_says_who_and_not_why(keyed):
    asked = {"model": "auto", "input": "A glad day."}
    heard = {}
    for sort in ("plain", "tracing"):
        heard[sort] = (await keyed(sort, "POST", "/v1/embeddings", json=asked)).json()
    mine, full = (heard[sort]["routing"]["selection"] for sort in ("plain", "tracing"))
    assert full["reason"]
    assert (mine["reason"], {e["score"] for e in mine["experts"]}) == ("", {0.0})
    same = {"mode", "strength", "token_router", "top_k"}
    assert {n: mine[n] for n in same} == {n: full[n] for n in same}
    again = {**asked, "routing": {"selection": mine}}
    told = (await keyed("plain", "POST", "/v1/embeddings", json=again)).json()
    assert told["data"] == heard["tracing"]["data"]


async def test_the_best_score_is_counted_for_those_who_see_no_trace(keyed, decision):
    asked = {**decision, "routing": {"router": "glider"}}
    assert (await keyed("plain", "POST", "/v1/decisions", json=asked)).status_code == 200
    text = (await keyed("scraper", "GET", "/metrics")).text
    assert f"sailplane_routing_top_score_count {len(decision['questions'])}.0" in text


async def test_folders_are_told_to_administrators_only(keyed):
    for sort, shown in (("plain", False), ("root", True)):
        expert = (await keyed(sort, "GET", "/v1/experts/mood")).json()
        model = (await keyed(sort, "GET", "/v1/models/mood")).json()
        assert bool(expert["path"]) is bool(model["root"]) is shown


async def test_so_many_requests_a_minute(keyed, decision):
    first = await keyed("slow", "POST", "/v1/decisions", json=decision)
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert (await keyed("slow", "GET", "/v1/models")).status_code == 200
    refused = await keyed("slow", "POST", "/v1/decisions", json=decision)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(refused.headers["Retry-After"]) <= 30
    assert refused.headers["x-ratelimit-limit-requests"] == "2"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert (await keyed("plain", "POST", "/v1/decisions", json=decision)).status_code == 200


async def test_so_many_tokens_a_minute(keyed, decision):
    assert (await keyed("frugal", "POST", "/v1/decisions", json=decision)).status_code == 200
    refused = await keyed("frugal", "POST", "/v1/decisions", json=decision)
    assert refused.status_code == 429
    assert "5 tokens a minute" in refused.json()["error"]["message"]


async def test_so_many_at_one_time(keyed, decision):
    many = [keyed("single", "POST", "/v1/decisions", json=decision) for _ in range(4)]
    statuses = sorted(r.status_code for r in await asyncio.gather(*many))
    assert statuses == [200, 429, 429, 429]
    assert (await keyed("single", "POST", "/v1/decisions", json=decision)).status_code == 200


async def test_a_removed_key_ends_and_a_new_one_begins_while_the_server_runs(keyed):
    assert (await keyed("plain", "GET", "/v1/models")).status_code == 200
    fresh, keyed.tokens["fresh"] = make_key("fresh", ["infer"])
    write_keys(keyed.path, [fresh, *(k for k in read_keys(keyed.path) if k.name != "plain")])
    for _ in range(60):
        if (await keyed("plain", "GET", "/v1/models")).status_code == 401:
            break
        await asyncio.sleep(0.1)
    assert (await keyed("plain", "GET", "/v1/models")).status_code == 401
    assert (await keyed("fresh", "GET", "/v1/models")).status_code == 200


async def test_a_request_without_a_key_is_refused_before_its_body_is_read(keyed):
    async def endless():
        pytest.fail("the body was read")
        yield b""

    response = await keyed.client.post("/v1/decisions", content=endless())
    assert response.status_code == 401
    assert response.headers["Connection"] == "close"


async def test_metrics_tell_of_keys_by_name_and_of_what_was_refused(keyed):
    await keyed("plain", "GET", "/v1/models")
    await keyed("plain", "GET", "/metrics")
    await keyed.client.get("/v1/models")
    text = (await keyed("scraper", "GET", "/metrics")).text
    assert 'sailplane_key_requests_total{key="plain",status="200"} 1.0' in text
    assert 'sailplane_key_requests_total{key="plain",status="403"} 1.0' in text
    assert 'sailplane_errors_total{code="invalid_api_key",route="/v1/models"} 1.0' in text
    assert keyed.tokens["plain"][20:] not in text


async def test_changes_are_audited_with_who_made_them_and_so_are_refused_ones(keyed, caplog):
    caplog.set_level(logging.INFO, "sailplane.audit")
    await keyed("plain", "GET", "/v1/models")
    await keyed("plain", "DELETE", "/v1/experts/mood")
    await keyed("root", "DELETE", "/v1/experts/mood", headers={"X-Request-Id": "mine"})
    await keyed("root", "POST", "/v1/experts", json={"source": "/nowhere", "id": "new"})
    lines = [json.loads(r.getMessage()) for r in caplog.records if r.name == "sailplane.audit"]
    told = [(x["key"], x["method"], x["route"], x.get("id"), x["status"]) for x in lines]
    assert told == [
        ("plain", "DELETE", "/v1/experts/{id}", "mood", 403),
        ("root", "DELETE", "/v1/experts/{id}", "mood", 204),
        ("root", "POST", "/v1/experts", "new", 403),
    ]
    assert lines[1]["request_id"] == "mine"
    assert (lines[2]["source"], lines[2]["error"]) == ("/nowhere", "source_forbidden")


async def test_pages_forbid_frames_and_foreign_scripts(keyed):
    page = await keyed("plain", "GET", "/docs")
    assert page.headers["X-Frame-Options"] == "DENY"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    data = await keyed("plain", "GET", "/v1/models")
    assert data.headers["X-Content-Type-Options"] == "nosniff"
    assert "Content-Security-Policy" not in data.headers
