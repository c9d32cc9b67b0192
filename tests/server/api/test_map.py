"""`/v1/map`: all that a caller may see, on a plane, and what is near a sentence."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.anyio


async def ok(client, method="GET", **said):
    response = await client.request(method, "/v1/map", **said)
    assert response.status_code == 200, response.text
    return response.json()


async def test_every_instruction_is_a_point(client, engine):
    told = await ok(client)
    assert told["experts"] == ["mood", "weather"]
    assert [(e, i) for e, i, *_ in told["points"]] == [(0, 0), (1, 0)]
    assert told["generation"] == engine.library.generation
    assert sum(told["told"]) == pytest.approx(1, abs=1e-3)  # two points lie on a line


async def test_an_experts_own_sentence_lies_where_it_does(client, engine):
    points = (await ok(client))["points"]
    placed = await ok(client, "POST", json={"instruction": "Tell the mood of the writer."})
    assert (placed["x"], placed["y"]) == pytest.approx(tuple(points[0][2:]), abs=1e-4)
    first, second = placed["near"]
    assert (first["expert"], first["instruction"]) == ("mood", 0)
    assert first["similarity"] == pytest.approx(1, abs=1e-4)
    mood_D, weather_D = engine.embedder.embed(
        ["Tell the mood of the writer.", "Say what the weather is like."]
    )
    assert second["similarity"] == pytest.approx(float(torch.dot(mood_D, weather_D)), abs=1e-4)


async def test_a_map_follows_the_library(client, adapters):
    before = await ok(client)
    body = {"source": str(adapters / "flight"), "id": "gliding"}
    assert (await client.post("/v1/experts", json=body)).status_code == 201
    after = await ok(client)
    assert after["experts"] == ["gliding", "mood", "weather"]
    assert after["generation"] != before["generation"]


async def test_an_empty_library_has_an_empty_map(client):
    for id in ("mood", "weather"):
        assert (await client.delete(f"/v1/experts/{id}")).status_code == 204
    assert (await ok(client))["points"] == []
    placed = await ok(client, "POST", json={"instruction": "Say something."})
    assert (placed["x"], placed["y"], placed["near"]) == (0, 0, [])


async def test_a_map_shows_what_the_caller_may_use(tagged, serve):
    library = tagged({"p0": ["red"], "p1": ["blue"], "p2": ["red"]})
    async with serve(library) as client:
        mine = await ok(client, headers={"X-Sailplane-Tags": "red"})
        said = {"json": {"instruction": "Do the work of taskp1."}}
        placed = await ok(client, "POST", headers={"X-Sailplane-Tags": "red"}, **said)
    assert mine["experts"] == ["p0", "p2"]
    assert {n["expert"] for n in placed["near"]} == {"p0", "p2"}


@pytest.mark.parametrize("body", [{}, {"instruction": ""}, {"instruction": "x", "neighbours": 0}])
async def test_a_bad_body_is_an_error(client, body):
    response = await client.post("/v1/map", json=body)
    assert response.status_code == 422


@pytest.mark.parametrize("said", ["", " \n", "x" * 4097])
async def test_a_sentence_that_says_nothing_or_is_too_long_is_refused(client, said):
    response = await client.post("/v1/map", json={"instruction": said})
    assert (response.status_code, response.json()["error"]["param"]) == (422, "instruction")
