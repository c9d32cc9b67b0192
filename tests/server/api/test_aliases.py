"""`/v1/aliases`: a name that stands for an expert answers wherever an expert is named."""

import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
async def aliased(client):
    answered = await client.put("/v1/aliases/prod", json={"expert": "mood"})
    assert answered.json() == {"object": "alias", "name": "prod", "expert": "mood", "version": 1}
    return client


async def put(client, name, ref):
    return await client.put(f"/v1/aliases/{name}", json={"expert": ref})


async def test_an_alias_is_listed_shown_and_taken_away(aliased):
    assert (await put(aliased, "frozen", "mood@1")).status_code == 200
    listed = (await aliased.get("/v1/aliases")).json()
    assert [(a["name"], a["expert"]) for a in listed["data"]] == [
        ("frozen", "mood@1"), ("prod", "mood"),
    ]  # fmt: skip
    mood = (await aliased.get("/v1/experts/mood")).json()
    assert mood["aliases"] == {"frozen": "mood@1", "prod": "mood"}
    assert (await aliased.get("/v1/experts/prod")).json() == mood
    models = {m["id"]: m for m in (await aliased.get("/v1/models")).json()["data"]}
    assert models["prod"]["root"] == models["mood"]["root"]
    assert (await aliased.get("/v1/models/prod")).json() == models["prod"]
    gone = await aliased.delete("/v1/aliases/prod")
    assert (gone.status_code, gone.content) == (204, b"")
    again = await aliased.delete("/v1/aliases/prod")
    assert (again.status_code, again.json()["error"]["code"]) == (404, "alias_not_found")
    assert "there are: frozen" in again.json()["error"]["message"]


async def test_the_answer_echoes_the_alias_and_the_trace_names_the_expert(aliased, decision):
    del decision["questions"][0]["choices"]
    direct = (await aliased.post("/v1/decisions", json={**decision, "model": "mood"})).json()
    told = (await aliased.post("/v1/decisions", json={**decision, "model": "prod"})).json()
    assert told["model"] == "prod"
    assert told["answers"] == direct["answers"]
    (expert,) = told["routing"]["questions"][0]["selection"]["experts"]
    assert (expert["id"], expert["version"]) == ("mood", 1)
    mixed = {**decision, "routing": {"experts": {"prod": 0.5, "weather": 0.5}}}
    told = (await aliased.post("/v1/route", json=mixed)).json()
    chosen = told["routing"]["questions"][0]["selection"]["experts"]
    assert {e["id"] for e in chosen} == {"mood", "weather"}


async def test_allow_and_deny_take_aliases(aliased, decision):
    for routing, expected in (({"allow": ["prod"]}, ["mood"]), ({"deny": ["prod"]}, ["weather"])):
        body = {**decision, "routing": {"router": "average", **routing}}
        told = (await aliased.post("/v1/route", json=body)).json()["routing"]["questions"][0]
        assert [e["id"] for e in told["selection"]["experts"]] == expected


async def test_an_expert_named_under_two_names_is_named_twice(aliased, decision):
    body = {**decision, "routing": {"experts": {"prod": 1, "mood": 1}}}
    refused = await aliased.post("/v1/decisions", json=body)
    assert refused.status_code == 422
    assert "named twice" in refused.json()["error"]["message"]


async def embedding(client, model):
    answered = await client.post("/v1/embeddings", json={"model": model, "input": "Grey."})
    assert answered.status_code == 200, answered.text
    return pytest.approx(answered.json()["data"][0]["embedding"], abs=1e-5)


async def test_an_alias_follows_and_a_pinned_one_stays(aliased, bare_adapter):
    assert (await put(aliased, "frozen", "mood@1")).status_code == 200
    old = await embedding(aliased, "mood")
    new = {"source": str(bare_adapter(rename=False))}
    assert (await aliased.put("/v1/experts/mood", json=new)).status_code == 200
    listed = {a["name"]: a["version"] for a in (await aliased.get("/v1/aliases")).json()["data"]}
    assert listed == {"frozen": 1, "prod": 2}
    assert await embedding(aliased, "frozen") == old.expected
    now = await embedding(aliased, "prod")
    assert now.expected != old
    assert await embedding(aliased, "mood@2") == now.expected
    assert (await aliased.post("/v1/experts/mood/rollback", json={"version": 1})).is_success
    assert await embedding(aliased, "prod") == old.expected
    assert await embedding(aliased, "frozen") == old.expected


async def test_an_expert_and_its_aliases_go_in_turn(aliased, adapters):
    refused = await aliased.delete("/v1/experts/mood")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "expert_aliased")
    assert "prod" in refused.json()["error"]["message"]
    assert refused.json()["error"]["details"] == {"aliases": ["prod"]}
    unload = await aliased.post("/v1/unload_lora_adapter", json={"lora_name": "mood"})
    assert unload.status_code == 409
    body = {"source": str(adapters / "flight"), "id": "prod"}
    taken = await aliased.post("/v1/experts", json=body)
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "expert_exists")
    assert (await aliased.delete("/v1/aliases/prod")).status_code == 204
    assert (await aliased.delete("/v1/experts/mood")).status_code == 204
    assert (await aliased.post("/v1/experts", json=body)).status_code == 201


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [("weather", {"expert": "mood"}, 409), ("auto", {"expert": "mood"}, 409),
     ("tiny-random", {"expert": "mood"}, 409), ("broken", {"expert": "mood"}, 409),
     ("mood@1", {"expert": "mood"}, 422), ("x y", {"expert": "mood"}, 422),
     ("new", {"expert": "nobody"}, 404), ("new", {"expert": "broken"}, 404),
     ("new", {"expert": "prod"}, 422), ("new", {"expert": "auto"}, 404),
     ("new", {"expert": ""}, 422), ("new", {}, 422), ("new", {"expert": "mood", "x": 1}, 422)],
)  # fmt: skip
async def test_what_cannot_be_an_alias(aliased, name, body, status):
    refused = await aliased.put(f"/v1/aliases/{name}", json=body)
    assert refused.status_code == status, refused.text
    assert len((await aliased.get("/v1/aliases")).json()["data"]) == 1


async def test_an_alias_of_what_went_bad_says_why(aliased, service):
    library = service.engine.library
    library.set_aside(library.get("mood"), "It would not load.")
    refused = await aliased.post("/v1/embeddings", json={"model": "prod", "input": "x"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "bad_expert")
    (alias,) = (await aliased.get("/v1/aliases")).json()["data"]
    assert alias["version"] is None
    models = [m["id"] for m in (await aliased.get("/v1/models")).json()["data"]]
    assert "prod" not in models
