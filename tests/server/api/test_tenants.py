"""Two tenants, each with a key: whatever one asks at whatever route, it hears nothing of the other.

`test_scope_as_alone.py` compares what is heard word for word; here every route is
asked about the other's expert by name.
"""

from __future__ import annotations

import json
from functools import partial

import pytest

from server.access.keyfile import KeyStore, write_keys
from server.access.keys import PERMISSIONS, make_key
from server.app import ROUTES as APP_ROUTES
from server.observability.folding import BY_KEY

pytestmark = pytest.mark.anyio
THEIRS = "p1"
SECRETS = ("titlep1", "taskp1", "labelonep1", "labeltwop1", "blue", "team-blue", "prod")
QUESTION = {"type": "choice", "instructions": "Do the work of it."}
DECISION = {"model": "auto", "input": "A text.", "questions": [QUESTION],
            "routing": {"trace": "full", "router": "glider"}}  # fmt: skip
BODIES = {
    "/v1/decisions": [
        DECISION,
        {**DECISION, "model": THEIRS, "routing": {}},
        {**DECISION, "routing": {"experts": {THEIRS: 1.0}}},
        {**DECISION, "routing": {"allow": [THEIRS]}},
        {**DECISION, "routing": {"deny": ["tag:blue"]}},
    ],
    "/v1/embeddings": [{"model": "auto", "input": "A text."}, {"model": THEIRS, "input": "A."}],
    "/v1/experts/{id}/rollback": [{"version": 1}],
    "/v1/experts/{id}": [{"source": "/nowhere", "tags": ["red"]}],
    "/v1/experts": [{"source": "/nowhere", "id": THEIRS, "tags": ["red"]}],
    "/v1/aliases/{name}": [{"expert": THEIRS}],
    "/v1/load_lora_adapter": [{"lora_name": THEIRS, "lora_path": "/nowhere"}],
    "/v1/unload_lora_adapter": [{"lora_name": THEIRS}],
    "/v1/completions": [{"model": THEIRS, "prompt": "A."}],
    "/v1/chat/completions": [
        {"model": THEIRS, "messages": [{"role": "user", "content": "A."}]},
    ],
    "/v1/feedback": [{"request_id": "r", "correct": True}],
    "/v1/map": [{"instruction": "Do the work of taskp1."}],
}
BODIES["/v1/route"] = BODIES["/v1/decisions"]


def about_them():
    """Requests to every route there is, each about the other's expert."""
    for route in APP_ROUTES:
        path = route.path
        for name in ("{id}", "{name}", "{model}"):
            path = path.replace(name, "prod" if "aliases" in path else THEIRS)
        for method in sorted(route.methods):
            for body in BODIES.get(route.path, [None]) if method in ("POST", "PUT") else [None]:
                yield method, path, body


@pytest.fixture
async def tenants(tagged, serve, tmp_path):
    """A client for each of the two, on one server."""
    library = tagged({"p0": ["red"], THEIRS: ["blue"]}, {"prod": THEIRS})
    (library / "broken-blue").mkdir()
    made = [make_key(f"team-{tag}", PERMISSIONS, [tag]) for tag in ("red", "blue")]
    write_keys(tmp_path / "keys.json", [key for key, _ in made])
    async with serve(library, keys=KeyStore(tmp_path / "keys.json")) as client:
        yield [
            partial(client.request, headers={"Authorization": f"Bearer {token}"})
            for _, token in made
        ]


@pytest.mark.parametrize("named", ["sources", "start", "memory", "tasks"])
async def test_what_an_expert_is_made_of_is_told_to_none_who_may_not_see_that(
    tagged, serve, tmp_path, named
):
    library = tagged({"p0": ["red"], THEIRS: ["blue"]})
    path = library / "p0" / "expert.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest["provenance"] = {named: f"p2@1, {THEIRS}@1", "licence": "MIT"}
    path.write_text(json.dumps(manifest), "utf-8")
    made = [make_key("red", PERMISSIONS, ["red"]), make_key("all", PERMISSIONS)]
    write_keys(tmp_path / "keys.json", [key for key, _ in made])
    async with serve(library, keys=KeyStore(tmp_path / "keys.json")) as client:
        heard = []
        for _, token in made:
            headers = {"Authorization": f"Bearer {token}"}
            heard.append((await client.get("/v1/experts/p0", headers=headers)).json())
    assert [h["provenance"] for h in heard] == [{"licence": "MIT"}, manifest["provenance"]]


async def test_no_route_tells_one_tenant_of_the_other(tenants):
    red, blue = tenants
    busy = await blue("POST", "/v1/decisions", json={**DECISION, "model": THEIRS, "routing": {}})
    assert busy.status_code == 200
    asked = list(about_them())
    assert len(asked) > 30
    for method, path, body in asked:
        response = await red(method, path, json=body)
        heard = response.text + str(response.headers)
        told = f"{path} {body}"
        for secret in (*SECRETS, f'"{THEIRS}"'):
            assert secret not in heard or secret.strip('"') in told, (method, path, body, heard)
    mine = await blue("GET", f"/v1/experts/{THEIRS}")
    assert mine.json()["title"] == "titlep1"  # nothing of theirs was changed


async def test_metrics_count_the_other_tenants_experts_and_keys_as_nobodys(tenants):
    red, blue = tenants
    await blue("POST", "/v1/decisions", json={**DECISION, "model": THEIRS, "routing": {}})
    heard = (await red("GET", "/metrics")).text
    assert 'sailplane_experts_selected_total{expert="other"} 1.0' in heard
    assert BY_KEY not in heard


async def test_how_often_an_expert_is_used_is_told_to_who_may_see_metrics(tagged, serve, tmp_path):
    library = tagged({"p0": ["red"]})
    made = [make_key("asks", ["infer"]), make_key("counts", ["infer", "metrics"])]
    write_keys(tmp_path / "keys.json", [key for key, _ in made])
    async with serve(library, keys=KeyStore(tmp_path / "keys.json")) as client:
        heard = []
        for _, token in made:
            headers = {"Authorization": f"Bearer {token}"}
            one = (await client.get("/v1/experts/p0", headers=headers)).json()
            (listed,) = (await client.get("/v1/experts", headers=headers)).json()["data"]
            assert listed == one
            heard.append(one["use"])
    assert heard == [None, {"tier": "disk", "times": 0, "last": None}]


async def test_a_key_with_tags_may_narrow_itself_and_not_widen(tenants):
    ask, key = tenants[0].func, tenants[0].keywords["headers"]
    wider = await ask("GET", "/v1/models", headers={**key, "X-Sailplane-Tags": "red, blue"})
    assert wider.status_code == 403
    assert wider.json()["error"]["param"] == "X-Sailplane-Tags"
    same = await ask("GET", "/v1/models", headers={**key, "X-Sailplane-Tags": "red"})
    assert "p0" in {model["id"] for model in same.json()["data"]}
