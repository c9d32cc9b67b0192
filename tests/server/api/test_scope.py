"""A caller limited to tags: for it there are the experts that carry one of them, and no others."""

import asyncio
import shutil

import pytest

from routers import shortlist
from server.api.scope import HEADER, parse_scope
from server.errors import RequestError

pytestmark = pytest.mark.anyio
A = {HEADER: "team-a, public"}
TAGS = {"p0": ["team-a"], "p1": ["team-b"], "p2": ["public", "team-b"], "p3": [], "p4": ["team-a"],
        "p5": ["team-b"], "p6": ["team-a"]}  # fmt: skip
SEEN = ["p0", "p2", "p4", "p6"]
ALIASES = {"mine": "p0", "frozen": "p4@1", "theirs": "p1", "stale": "p3@7"}
PRESETS = ("sailplane", "glider", "glider-3", "dam", "phatgoose", "arrow", "retrieval",
           "neighbours", "average")  # fmt: skip


@pytest.fixture
async def client(serve, tagged, pool):
    async with serve(tagged(TAGS, ALIASES), [pool]) as client:
        yield client


def asking(model="auto", **routing):
    question = {"type": "choice", "instructions": "Do the work of taskp1.",
                "choices": [{"value": "labelonep1"}, {"value": "labeltwop1"}]}  # fmt: skip
    return {"model": model, "input": "A text about labelonep1.", "questions": [question],
            "routing": routing}  # fmt: skip


async def trace(client, headers, **routing):
    body = asking(**{"trace": "full", **routing})
    answered = await client.post("/v1/decisions", json=body, headers=headers)
    assert answered.status_code == 200, answered.text
    return answered.json()["routing"]["questions"][0]


def chosen(found):
    return {e["id"] for e in found["selection"]["experts"]}


def named(found):
    return chosen(found) | {c["id"] for c in found["candidates"]} | {*found["dropped"]}


@pytest.mark.parametrize("preset", PRESETS)
async def test_every_preset_searches_what_the_caller_may_use(client, preset):
    found = await trace(client, A, router=preset)
    assert chosen(found)
    assert named(found) <= {*SEEN}
    assert named(await trace(client, {}, router=preset)) - {*SEEN}


@pytest.mark.parametrize("preset", PRESETS)
async def test_the_same_in_a_library_that_is_cut_to_a_shortlist(client, monkeypatch, preset):
    monkeypatch.setattr(shortlist, "SMALL", 2)
    monkeypatch.setattr(shortlist, "KEPT", 3)
    client._transport.app.state.context.service.engine.routing.view._built = None  # made anew
    found = await trace(client, A, router=preset)
    assert chosen(found)
    assert named(found) <= {*SEEN}
    found = await trace(client, A, router=preset, allow=["tag:team-a", "p2"], deny=["p0"])
    assert chosen(found)
    assert chosen(found) <= {*SEEN} - {"p0"}
    assert named(await trace(client, {}, router=preset)) - {*SEEN}


async def test_without_the_header_everything_is_there(client):
    listed = (await client.get("/v1/experts")).json()["data"]
    assert [e["id"] for e in listed] == sorted(TAGS)
    assert (await client.post("/v1/decisions", json=asking("p3"))).status_code == 200


async def test_a_scan_tells_a_caller_of_its_own_experts_alone(client):
    library = client._transport.app.state.context.service.engine.library
    for id in ("p0", "p1"):  # one of its own, and one of others
        shutil.move(library.root / id, library.root.parent / id)
    found = (await client.post("/v1/experts/scan", headers=A)).json()
    assert (found["removed"], found["bad"]) == (["p0"], [])
    for id in ("p0", "p1"):
        shutil.move(library.root.parent / id, library.root / id)
    assert (await client.post("/v1/experts/scan")).json()["added"] == ["p0", "p1"]


NO_TAGS = ["", " ", ",", "team-a,", "team a", "team-a;public", "-a", "a" * 65, "ä".encode(),
           ",".join(f"t{i}" for i in range(65))]  # fmt: skip


@pytest.mark.parametrize("said", NO_TAGS)
async def test_a_header_that_says_nothing_is_an_error_everywhere(client, said):
    headers = {HEADER: said}
    for path in ("/v1/models", "/v1/models/p0", "/v1/experts", "/v1/experts/p0", "/v1/aliases",
                 "/metrics"):  # fmt: skip
        refused = await client.get(path, headers=headers)
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, HEADER), path
    for path in ("/v1/decisions", "/v1/route", "/v1/embeddings", "/v1/experts"):
        refused = await client.post(path, json=asking(), headers=headers)
        assert refused.status_code == 422, path
    assert (await client.get("/health", headers=headers)).status_code == 200


async def test_every_route_of_the_library_heeds_the_header(client):
    """A route that forgets the header would let a limited caller do anything."""
    paths = (await client.get("/openapi.json")).json()["paths"]
    told = [(path, method.upper()) for path, item in paths.items() for method in item]
    assert len(told) > 15
    bodies = {
        "/v1/load_lora_adapter": {"lora_name": "x", "lora_path": "x"},
        "/v1/unload_lora_adapter": {"lora_name": "p0"},
        "/v1/embeddings": {"model": "auto", "input": "x"},
        "/v1/completions": {"model": "auto", "prompt": "x"},
        "/v1/chat/completions": {"model": "auto", "messages": [{"role": "user", "content": "x"}]},
        "/v1/experts": {"source": "x", "id": "x"},
        "/v1/experts/{id}": {"source": "x"},
        "/v1/experts/{id}/rollback": {"version": 1},
        "/v1/aliases/{name}": {"expert": "p0"},
        "/v1/feedback": {"request_id": "x", "correct": True},
        "/v1/map": {"instruction": "x"},
    }
    for path, method in told:
        documented = {p["name"] for p in paths[path][method.lower()].get("parameters", ())}
        assert (HEADER in documented) == (path not in ("/health", "/ready")), path
        if path in ("/health", "/ready"):
            continue
        body = None if method in ("GET", "DELETE") else bodies.get(path, asking())
        url = path.format(id="p0", name="mine", model="p0")
        refused = await client.request(method, url, json=body, headers={HEADER: "no tag"})
        assert refused.status_code == 422, (method, path)
        assert refused.json()["error"]["param"] == HEADER, (method, path)


def test_a_repeated_header_adds_up():
    assert parse_scope("a,\tb , a").tags == {"a", "b"}
    with pytest.raises(RequestError, match="leave the header out"):
        parse_scope("")


async def test_the_header_may_be_sent_twice(client):
    twice = [(HEADER, "team-a"), (HEADER, "public")]
    listed = (await client.get("/v1/experts", headers=twice)).json()["data"]
    assert [e["id"] for e in listed] == SEEN


async def test_tags_that_no_expert_carries_show_nothing(client):
    headers = {HEADER: "team-z"}
    assert (await client.get("/v1/experts", headers=headers)).json()["data"] == []
    found = await trace(client, headers)
    assert (found["fallback"], named(found)) == ("no_expert", set())


async def test_lists_name_no_others(client):
    listed = (await client.get("/v1/experts", headers=A)).json()
    assert [e["id"] for e in listed["data"]] == SEEN
    assert [e["tags"] for e in listed["data"]] == [["team-a"], ["public"], ["team-a"], ["team-a"]]
    models = (await client.get("/v1/models", headers=A)).json()["data"]
    assert [m["id"] for m in models] == ["auto", "tiny-random", *SEEN, "frozen", "mine"]
    aliases = (await client.get("/v1/aliases", headers=A)).json()["data"]
    assert {a["name"]: a["expert"] for a in aliases} == {"frozen": "p4@1", "mine": "p0"}


UNSEEN = ["p1", "p1@1", "p3", "theirs", "p2@1x", "nobody", "nobody@1"]


@pytest.mark.parametrize("name", UNSEEN)
async def test_what_is_not_seen_answers_as_if_it_were_not_there(client, name):
    """Word for word as for a name that was never there, but for the name."""
    selection = {"mode": "single", "experts": [{"id": name, "weight": 1.0}]}
    for body in (
        asking(name), asking(experts={name: 1.0}), asking(allow=[name]), asking(deny=[name]),
        asking(allow=["p0", name]), asking(selection=selection),
    ):  # fmt: skip
        for path in ("/v1/decisions", "/v1/route"):
            told = []
            for asked in (name, unknown(name)):
                sent = _renamed(body, name, asked)
                refused = await client.post(path, json=sent, headers=A)
                assert refused.status_code == 404, refused.text
                told.append(refused.text.replace(asked.split("@")[0], "<name>"))
            assert told[0] == told[1]


def unknown(name):
    """A name that was never there, of the same form."""
    return "zzzzz" + name.removeprefix(name.split("@")[0])


def _renamed(body, name, other):
    if isinstance(body, dict):
        return {other if k == name else k: _renamed(v, name, other) for k, v in body.items()}
    if isinstance(body, list):
        return [_renamed(v, name, other) for v in body]
    return other if body == name else body


@pytest.mark.parametrize("name", ["p1", "p1@1", "theirs", "p3"])
async def test_what_is_not_seen_cannot_be_shown_or_changed(client, name):
    for method, path, body in (
        ("GET", "/v1/experts/{}", None), ("GET", "/v1/models/{}", None),
        ("DELETE", "/v1/experts/{}", None), ("DELETE", "/v1/aliases/{}", None),
        ("POST", "/v1/experts/{}/rollback", {"version": 1}),
    ):  # fmt: skip
        told = [
            await client.request(method, path.format(n), json=body, headers=A)
            for n in (name, unknown(name))
        ]
        assert [t.status_code for t in told] == [404, 404], (method, path)
        first, second = (t.text.replace(n, "<name>") for t, n in zip(
            told, (name.split("@")[0], "zzzzz"), strict=True))  # fmt: skip
        assert first == second
    unload = await client.post("/v1/unload_lora_adapter", json={"lora_name": "p1"}, headers=A)
    assert unload.status_code == 404
    alias = await client.put("/v1/aliases/new", json={"expert": name}, headers=A)
    assert alias.status_code == 404
    assert [e["id"] for e in (await client.get("/v1/experts")).json()["data"]] == sorted(TAGS)


async def test_what_a_folder_that_is_bad_says_is_told_to_no_limited_caller(serve, tagged):
    library = tagged(TAGS)
    (library / "p0" / "adapter_model.safetensors").unlink()
    async with serve(library) as client:
        assert (await client.get("/v1/experts")).json()["bad"]
        assert (await client.get("/v1/experts", headers=A)).json()["bad"] == []
        refused = await client.post("/v1/decisions", json=asking("p0"), headers=A)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")


async def test_allow_and_deny_take_tags(client):
    found = await trace(client, {}, router="average", allow=["tag:public", "p3"])
    assert chosen(found) == {"p2", "p3"}
    found = await trace(client, {}, router="average", allow=["tag:team-a", "p3", "mine"],
                        deny=["tag:public", "frozen", "p6"])  # fmt: skip
    assert chosen(found) == {"p0", "p3"}
    found = await trace(client, {}, router="average", deny=["tag:team-a", "tag:team-b"])
    assert chosen(found) == {"p3"}
    found = await trace(client, {}, allow=["tag:team-a"], deny=["tag:team-a"])
    assert found["fallback"] == "no_expert"


async def test_a_tag_in_allow_reaches_no_further_than_the_caller(client):
    found = await trace(client, A, router="average", allow=["tag:public"])
    assert chosen(found) == {"p2"}
    for name in ("tag:team-b", "tag:nobody"):  # p2 carries the first, which the caller can't know
        for key in ("allow", "deny"):
            refused = await client.post("/v1/decisions", json=asking(**{key: [name]}), headers=A)
            assert refused.status_code == 404
            assert refused.json()["error"]["message"] == (
                f"No expert carries the tag {name.removeprefix('tag:')!r}."
            )


async def test_a_former_version_in_allow_is_refused(client, pool):
    put = {"source": str(pool / "p4"), "tags": ["team-a"]}
    assert (await client.put("/v1/experts/p4", json=put, headers=A)).status_code == 200
    for name in ("p4@1", "frozen"):
        refused = await client.post("/v1/decisions", json=asking(allow=[name]), headers=A)
        assert refused.status_code == 422
        assert "former version" in refused.json()["error"]["message"]
    assert chosen(await trace(client, A, allow=["p4@2"])) == {"p4"}


async def test_callers_of_one_batch_do_not_meet(client):
    bodies = [({}, "p1"), (A, "p0"), ({HEADER: "team-b"}, "p1")] * 4
    found = await asyncio.gather(*(trace(client, headers) for headers, _ in bodies))
    for (headers, _), one in zip(bodies, found, strict=True):
        if headers is A:
            assert named(one) <= {*SEEN}
        elif headers:
            assert named(one) <= {"p1", "p2", "p5"}


async def test_embeddings_share_one_selection_of_what_may_be_used(client):
    body = {"model": "auto", "input": ["A text about labelonep1.", "Another."]}
    told = (await client.post("/v1/embeddings", json=body, headers=A)).json()["routing"]
    assert {e["id"] for e in told["selection"]["experts"]} <= {*SEEN}
    pinned = {**body, "routing": {"selection": told["selection"]}}
    assert (await client.post("/v1/embeddings", json=pinned, headers=A)).status_code == 200
    other = await client.post("/v1/embeddings", json=pinned, headers={HEADER: "team-z"})
    assert other.status_code == 404


async def test_metrics_name_no_others(client):
    for model in ("p1", "p3", "p0", "p0"):
        assert (await client.post("/v1/decisions", json=asking(model))).status_code == 200
    lines = (await client.get("/metrics", headers=A)).text.splitlines()
    counted = [line for line in lines if line.startswith("sailplane_experts_selected_total{")]
    assert counted == [
        'sailplane_experts_selected_total{expert="p0"} 2.0',
        'sailplane_experts_selected_total{expert="other"} 2.0',
    ] or sorted(counted) == sorted(
        ['sailplane_experts_selected_total{expert="p0"} 2.0',
         'sailplane_experts_selected_total{expert="other"} 2.0']
    )  # fmt: skip
    everything = (await client.get("/metrics")).text
    assert 'expert="p1"} 1.0' in everything
    assert 'expert="other"' not in everything


async def test_what_a_limited_caller_adds_carries_its_tags(client, pool):
    body = {"source": str(pool / "p1"), "id": "new"}
    for tags in ([], ["other"], ["team-a", "other"]):
        refused = await client.post("/v1/experts", json={**body, "tags": tags}, headers=A)
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "bad_tags")
        assert "public, team-a" in refused.json()["error"]["message"]
    bad = await client.post("/v1/experts", json={**body, "tags": ["no tag"]}, headers=A)
    assert bad.status_code == 422
    assert bad.json()["error"]["param"] == "tags[0]"
    added = await client.post("/v1/experts", json={**body, "tags": ["team-a"]}, headers=A)
    assert (added.status_code, added.json()["tags"]) == (201, ["team-a"])
    assert (await client.get("/v1/experts/new", headers={HEADER: "public"})).status_code == 404
    vllm = {"lora_name": "bare", "lora_path": str(pool / "p1")}
    refused = await client.post("/v1/load_lora_adapter", json=vllm, headers=A)
    assert refused.status_code == 422


async def test_a_name_that_is_taken_tells_nothing_of_who_has_it(client, pool):
    told = set()
    for id in ("p1", "p3", "theirs", "stale"):
        body = {"source": str(pool / "p1"), "id": id, "tags": ["team-a"]}
        refused = await client.post("/v1/experts", json=body, headers=A)
        put = {k: v for k, v in body.items() if k != "id"}
        also = await client.put(f"/v1/experts/{id}", json=put, headers=A)
        alias = await client.put(f"/v1/aliases/{id}", json={"expert": "p0"}, headers=A)
        for answer in (refused, also, alias):
            assert answer.status_code == 409
            told.add(answer.json()["error"]["message"].replace(repr(id), "<name>"))
    assert told == {"The name <name> is taken; choose another."}


async def test_what_a_limited_caller_replaces_stays_visible_to_others(client, pool):
    put = {"source": str(pool / "p2"), "tags": ["team-a", "public"]}
    replaced = await client.put("/v1/experts/p2", json=put, headers=A)
    assert (replaced.status_code, replaced.json()["tags"]) == (200, ["team-a", "public"])
    now = (await client.get("/v1/experts/p2")).json()
    assert now["tags"] == ["team-a", "public", "team-b"]
    assert now["versions"] == [1, 2]


async def test_a_version_of_other_tags_is_not_seen(client, pool):
    """What an expert was before it was shared is not shared by that."""
    put = {"source": str(pool / "p1"), "tags": ["public"]}
    assert (await client.put("/v1/experts/p1", json=put)).json()["versions"] == [1, 2]
    seen = (await client.get("/v1/experts/p1", headers=A)).json()
    assert (seen["version"], seen["versions"]) == (2, [2])
    assert (await client.post("/v1/decisions", json=asking("p1@1"), headers=A)).status_code == 404
    back = await client.post("/v1/experts/p1/rollback", json={"version": 1}, headers=A)
    assert back.status_code == 404
    assert "there are: 2" in back.json()["error"]["message"]


async def test_an_adapter_may_not_come_from_the_library_itself(serve, tagged):
    library = tagged(TAGS)
    async with serve(library, [library]) as client:
        body = {"source": str(library / "p1"), "id": "stolen", "tags": ["team-a"]}
        assert (await client.post("/v1/experts", json=body, headers=A)).status_code == 403
        assert (await client.post("/v1/experts", json=body)).status_code == 201


async def test_explicit_experts_of_different_merge_groups_are_refused(client):
    """However they are named: LoRA and bottleneck adapters cannot act on one sample."""
    pinned = {"mode": "merge", "experts": [{"id": i, "weight": 0.5} for i in ("p0", "p6")]}
    for routing in ({"experts": {"p0": 1, "p6": 1}}, {"experts": {"mine": 1, "p6@1": 1}},
                    {"selection": pinned}):  # fmt: skip
        for path in ("/v1/decisions", "/v1/route"):
            refused = await client.post(path, json=asking(**routing), headers=A)
            assert refused.status_code == 422, refused.text
            error = refused.json()["error"]
            assert error["code"] == "bad_mix"
            assert "p0@1 (lora)" in error["message"]
            assert "p6@1 (bottleneck/" in error["message"]
            assert "Name experts of one group" in error["message"]
        texts = {"model": "auto", "input": ["a", "b"], "routing": routing}
        assert (await client.post("/v1/embeddings", json=texts)).status_code == 422
    both = {"experts": {"p5": 1, "p6": 1}}
    assert (await client.post("/v1/decisions", json=asking(**both))).status_code == 200
