"""`/v1/models`, `/v1/experts` and vLLM's adapter routes: the library, live."""

import asyncio
import shutil
import time

import pytest

from experts.library import Library

pytestmark = pytest.mark.anyio


async def ids(client) -> list[str]:
    return [model["id"] for model in (await client.get("/v1/models")).json()["data"]]


async def test_models_are_auto_the_backbone_and_every_expert(client):
    assert await ids(client) == ["auto", "tiny-random", "mood", "weather"]
    mood = (await client.get("/v1/models/mood")).json()
    assert mood["parent"] == "tiny-random"
    assert mood["root"].endswith("/mood")
    assert mood["object"] == "model"


async def test_experts_are_listed_with_the_bad_ones_and_why(client):
    listed = (await client.get("/v1/experts")).json()
    mood, _ = listed["data"]
    assert mood["labels"] == ["happy", "sad"]
    assert mood["state"] == "routed"
    assert mood == (await client.get("/v1/experts/mood")).json()
    (bad,) = listed["bad"]
    assert bad["name"] == "broken"
    assert "adapter_model.safetensors" in bad["reason"]


async def test_an_expert_is_told_with_its_size_its_place_and_its_use(client, library, decision):
    mood = (await client.get("/v1/experts/mood")).json()
    files = [f for f in (library / "mood").iterdir() if f.name != "expert.json"]
    assert mood["bytes"] == sum(f.stat().st_size for f in files)
    assert mood["use"] == {"tier": "disk", "times": 0, "last": None}
    for _ in range(2):
        await client.post("/v1/decisions", json={**decision, "model": "mood"})
    used = (await client.get("/v1/experts/mood")).json()["use"]
    assert (used["tier"], used["times"]) == ("device", 2)
    assert abs(used["last"] - time.time()) < 60


async def test_an_expert_is_added_answers_and_is_removed(client, adapters, decision):
    body = {"source": str(adapters / "flight"), "id": "gliding", "title": "Gliding",
            "choices": [{"value": "up", "description": "a thermal"}, {"value": "down"}],
            "tags": ["air"]}  # fmt: skip
    added = await client.post("/v1/experts", json=body)
    assert added.status_code == 201, added.text
    assert added.headers["location"] == "/v1/experts/gliding"
    assert added.json()["labels"] == ["up", "down"]
    assert added.json()["tags"] == ["air"]
    assert "gliding" in await ids(client)
    question = {"model": "gliding", "input": "Rising air.", "questions": [{"type": "choice"}]}
    (answer,) = (await client.post("/v1/decisions", json=question)).json()["answers"]
    assert [p["value"] for p in answer["probabilities"]] == ["up", "down"]
    removed = await client.delete("/v1/experts/gliding")
    assert (removed.status_code, removed.content) == (204, b"")
    assert (await client.post("/v1/decisions", json=question)).status_code == 404


async def test_vllms_routes_load_replace_and_unload(client, bare_adapter):
    body = {"lora_name": "bare", "lora_path": str(bare_adapter(rename=False))}
    loaded = await client.post("/v1/load_lora_adapter", json=body)
    assert loaded.text == "Success: LoRA adapter 'bare' added successfully."
    assert (await client.get("/v1/experts/bare")).json()["state"] == "unrouted"
    assert (await client.post("/v1/load_lora_adapter", json=body)).status_code == 409
    again = await client.post("/v1/load_lora_adapter", json={**body, "load_inplace": True})
    assert again.status_code == 200, again.text
    unloaded = await client.post("/v1/unload_lora_adapter", json={"lora_name": "bare"})
    assert unloaded.status_code == 200
    assert "bare" not in await ids(client)


async def test_a_replacement_that_cannot_be_served_leaves_the_old_one(
    client, bare_adapter, library
):
    damaged = bare_adapter(rename=True)
    body = {"lora_name": "mood", "lora_path": str(damaged), "load_inplace": True}
    assert (await client.post("/v1/load_lora_adapter", json=body)).status_code == 422
    assert "mood" in await ids(client)
    assert (library / "mood" / "adapter_model.safetensors").exists()


async def test_a_replaced_expert_answers_with_its_new_weights(client, bare_adapter):
    embed = {"model": "mood", "input": "Clear skies."}
    before = (await client.post("/v1/embeddings", json=embed)).json()["data"][0]["embedding"]
    body = {"lora_name": "mood", "lora_path": str(bare_adapter(rename=False)),
            "load_inplace": True}  # fmt: skip
    assert (await client.post("/v1/load_lora_adapter", json=body)).status_code == 200
    after = (await client.post("/v1/embeddings", json=embed)).json()["data"][0]["embedding"]
    assert after != pytest.approx(before, abs=1e-3)


async def embedding(client, model, **routing):
    body = {"model": model, "input": "Clear skies.", "routing": routing}
    answered = await client.post("/v1/embeddings", json=body)
    assert answered.status_code == 200, answered.text
    return pytest.approx(answered.json()["data"][0]["embedding"], abs=1e-5)


async def test_versions_of_an_expert_answer_side_by_side(client, bare_adapter):
    old = await embedding(client, "mood")
    new_one = {"source": str(bare_adapter(rename=False)), "title": "Mood, trained again"}
    replaced = (await client.put("/v1/experts/mood", json=new_one)).json()
    first, second = replaced["versions"]
    assert (replaced["version"], replaced["title"]) == (second, "Mood, trained again")
    new = await embedding(client, "mood")
    assert new.expected != old
    assert await embedding(client, f"mood@{first}") == old.expected
    assert await embedding(client, f"mood@{second}") == new.expected
    named = {f"mood@{first}": 0.5, f"mood@{second}": 0.5}
    mixed = await embedding(client, "auto", experts=named)
    assert mixed.expected != old
    assert mixed.expected != new
    missing = await client.post("/v1/embeddings", json={"model": "mood@9", "input": "Grey."})
    assert missing.status_code == 404
    assert f"there are: {first}, {second}" in missing.json()["error"]["message"]


@pytest.mark.parametrize("version", ["0", "9" * 5000, "-1", "1@2", ""])
async def test_a_version_that_cannot_be_is_no_model(client, version):
    refused = await client.post("/v1/embeddings", json={"model": f"mood@{version}", "input": "x"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")


async def test_an_expert_is_named_once(client):
    version = (await client.get("/v1/experts/mood")).json()["version"]
    twice = {"experts": {"mood": 1.0, f"mood@{version}": 1.0}}
    asked = {"model": "auto", "input": "Grey.", "routing": twice}
    refused = await client.post("/v1/embeddings", json=asked)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "routing.experts")


async def test_a_command_line_may_remove_an_expert_beside_the_server(client, library, service):
    backbone = service.engine.backbone
    other = Library.open(library, fingerprint=backbone.fingerprint, backbone_id=backbone.id)
    other.remove("mood")
    routed = {"model": "auto", "input": "Clear skies.", "routing": {"router": "average"}}
    assert (await client.post("/v1/embeddings", json=routed)).status_code == 200
    gone = await client.post("/v1/embeddings", json={"model": "mood", "input": "Clear skies."})
    assert gone.status_code == 404, gone.text
    assert (await client.post("/v1/experts/scan")).json()["removed"] == ["mood"]
    listed = (await client.get("/v1/experts")).json()
    assert "mood" not in {e["id"] for e in listed["data"]} | {b["name"] for b in listed["bad"]}


async def test_a_library_out_of_reach_fails_what_must_be_loaded_and_comes_back(client, library):
    asked = {"input": "Clear skies."}
    held = await client.post("/v1/embeddings", json={"model": "mood", **asked})
    away = library.rename(library.with_name("unmounted"))
    still = await client.post("/v1/embeddings", json={"model": "mood", **asked})
    assert still.json()["data"] == held.json()["data"]
    cold = await client.post("/v1/embeddings", json={"model": "weather", **asked})
    assert (cold.status_code, cold.json()["error"]["code"]) == (503, "library_unreachable")
    assert "'weather'" in cold.json()["error"]["message"]
    away.rename(library)
    assert (await client.post("/v1/embeddings", json={"model": "weather", **asked})).is_success


async def test_a_command_line_may_replace_an_expert_beside_the_server(
    client, bare_adapter, library, service
):
    first = (await client.get("/v1/experts/mood")).json()["version"]
    folder, backbone = bare_adapter(rename=False), service.engine.backbone
    other = Library.open(library, fingerprint=backbone.fingerprint, backbone_id=backbone.id)
    other.add(folder, "mood", sites=backbone.sites, roots=(folder.parent,), replace=True)
    at_once = await embedding(client, "mood")  # notices, and answers with either of the two
    listed = (await client.get("/v1/experts/mood")).json()
    assert (listed["version"], listed["versions"]) == (first + 1, [first, first + 1])
    old, new = [await embedding(client, f"mood@{version}") for version in listed["versions"]]
    assert at_once.expected in (old, new)
    assert (await embedding(client, "mood")).expected == new
    assert old.expected != new


async def test_a_scan_tells_what_others_changed_and_what_is_bad(client, library, write_task):
    before = (await client.get("/v1/experts")).json()["generation"]
    write_task(library, "flight")
    write_task(library, "mood")
    shutil.rmtree(library / "weather")
    found = (await client.post("/v1/experts/scan")).json()
    listed = (await client.get("/v1/experts")).json()
    assert found == {
        "object": "scan", "added": ["flight"], "replaced": ["mood"], "removed": ["weather"],
        "bad": ["broken"], "generation": listed["generation"],
    }  # fmt: skip
    assert listed["generation"] != before
    assert await ids(client) == ["auto", "tiny-random", "flight", "mood"]
    asked = {"model": "auto", "input": "Grey."}
    traced = (await client.post("/v1/embeddings", json=asked)).json()["routing"]["trace"]
    assert traced["generation"] == listed["generation"]
    assert not (await client.post("/v1/experts/scan")).json()["added"]


async def test_a_scan_of_a_folder_that_is_gone_is_an_error_and_the_experts_stay(client, library):
    library.rename(library.with_name("away"))
    refused = await client.post("/v1/experts/scan")
    assert refused.status_code == 503
    assert "is not there" in refused.json()["error"]["message"]
    assert await ids(client) == ["auto", "tiny-random", "mood", "weather"]


async def test_a_selection_pins_a_version_that_is_kept(client, bare_adapter):
    asked = {"model": "mood", "input": "Clear skies."}
    before = (await client.post("/v1/embeddings", json=asked)).json()
    await client.put("/v1/experts/mood", json={"source": str(bare_adapter(rename=False))})
    pinned = {**asked, "model": "auto", "routing": {"selection": before["routing"]["selection"]}}
    after = (await client.post("/v1/embeddings", json=pinned)).json()
    assert after["data"][0]["embedding"] == pytest.approx(before["data"][0]["embedding"], abs=1e-5)


async def test_rolling_back(client, bare_adapter):
    old = await embedding(client, "mood")
    replaced = (
        await client.put("/v1/experts/mood", json={"source": str(bare_adapter(rename=False))})
    ).json()
    first = replaced["versions"][0]
    back = await client.post("/v1/experts/mood/rollback", json={"version": first})
    assert (back.status_code, back.json()["version"]) == (200, first)
    assert await embedding(client, "mood") == old.expected
    gone = await client.post("/v1/experts/mood/rollback", json={"version": 77})
    assert gone.status_code == 404
    odd = await client.put("/v1/experts/.odd", json={"source": "somewhere"})
    assert (odd.status_code, odd.json()["error"]["param"]) == (422, "id")


async def test_no_request_fails_while_an_expert_is_replaced(client, bare_adapter):
    body = {"source": str(bare_adapter(rename=False))}
    asked = {"model": "mood", "input": "Clear skies."}
    stop = False

    async def ask():
        codes = []
        while not stop:
            codes.append((await client.post("/v1/embeddings", json=asked)).status_code)
        return codes

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    for _ in range(6):
        assert (await client.put("/v1/experts/mood", json=body)).status_code == 200
    stop = True
    codes = [code for task in asking for code in await task]
    assert len(codes) > 6
    assert set(codes) == {200}


async def test_a_client_that_leaves_leaves_nothing_half_removed(client, service, adapters):
    """Removal is one piece of work: its weights are out of memory however it was asked for."""
    embed = {"model": "mood", "input": "Clear skies."}
    assert (await client.post("/v1/embeddings", json=embed)).status_code == 200
    library, asked = service.engine.library, asyncio.Event()
    loop, remove = asyncio.get_running_loop(), library.remove

    def slow(*asked_for: object) -> None:
        loop.call_soon_threadsafe(asked.set)
        time.sleep(0.1)
        remove(*asked_for)

    library.remove = slow
    leaving = asyncio.create_task(client.delete("/v1/experts/mood"))
    await asked.wait()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    library.remove = remove
    body = {"source": str(adapters / "flight"), "id": "mood"}
    assert (await client.post("/v1/experts", json=body)).status_code == 201  # waits its turn
    assert [tier.experts for tier in service.engine.tiers.stats.values()] == [0, 0]


async def test_replacing_at_the_same_time_is_served_in_turn(client, bare_adapter):
    body = {"lora_name": "mood", "lora_path": str(bare_adapter(rename=False)),
            "load_inplace": True}  # fmt: skip
    answers = await asyncio.gather(
        *(client.post("/v1/load_lora_adapter", json=body) for _ in range(8))
    )
    assert [a.status_code for a in answers] == [200] * 8


async def test_artefacts_that_went_bad_cost_their_own_expert_alone(client, library):
    (library / "mood" / "routing.safetensors").write_bytes(b"damaged")
    forced = await client.post("/v1/embeddings", json={"model": "mood", "input": "Grey."})
    assert forced.status_code == 422
    assert "routing.safetensors" in forced.json()["error"]["message"]
    listed = (await client.get("/v1/experts")).json()
    assert [e["id"] for e in listed["data"]] == ["weather"]
    assert {b["name"] for b in listed["bad"]} == {"broken", "mood"}


async def test_one_sentence_makes_a_bare_adapter_routable_at_once(client, bare_adapter):
    """It comes with no data and no gates: its weight is the request's at every token."""
    said = "Decide how the glider flies."
    body = {"source": str(bare_adapter(rename=False)), "id": "gliding", "instructions": [said]}
    added = await client.post("/v1/experts", json=body)
    assert (added.status_code, added.json()["state"]) == (201, "routed")
    asked = {"model": "auto", "input": "Rising air.", "routing": {"instruction": said}}
    routing = (await client.post("/v1/embeddings", json=asked)).json()["routing"]
    best = routing["selection"]["experts"][0]
    assert best["id"] == "gliding"
    assert best["fixed"] or routing["selection"]["mode"] != "token"


async def test_examples_make_an_adapter_routable_by_its_inputs(client, bare_adapter, library):
    texts = ["The glider climbs in rising air.", "The glider sinks in falling air."]
    body = {"source": str(bare_adapter(rename=False)), "id": "gliding", "examples": texts}
    added = await client.post("/v1/experts", json=body)
    assert (added.status_code, added.json()["state"]) == (201, "routed")
    asked = {"model": "auto", "input": texts[0], "routing": {"router": "dam"}}
    routing = (await client.post("/v1/embeddings", json=asked)).json()["routing"]
    assert routing["selection"]["experts"][0]["id"] == "gliding"
    stored = b"".join(p.read_bytes() for p in (library / "gliding").iterdir())
    assert b"glider" not in stored  # an example is read once and not kept


async def test_too_many_examples_are_refused(client, bare_adapter):
    body = {"source": str(bare_adapter(rename=False)), "id": "g", "examples": ["text"] * 257}
    refused = await client.post("/v1/experts", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "examples")


async def test_statements_given_with_an_expert_let_it_judge(client, adapters):
    labels = [
        {"value": v, "statements": [f"The glider goes {v}."],
         "negations": [f"The glider does not go {v}."]}
        for v in ("up", "down")
    ]  # fmt: skip
    body = {"source": str(adapters / "flight"), "id": "gliding", "choices": labels}
    assert (await client.post("/v1/experts", json=body)).status_code == 201
    said = {"type": "predicate", "instructions": "The glider goes up."}
    asked = {"model": "gliding", "input": "Rising air.", "questions": [said]}
    (answer,) = (await client.post("/v1/decisions", json=asked)).json()["answers"]
    assert 0 <= answer["probability"] <= 1


@pytest.mark.parametrize("source", ["a\0b", "a" * 300])
async def test_a_path_that_cannot_be_is_no_fault_of_the_server(client, adapters, source):
    body = {"source": str(adapters / source), "id": "gliding"}
    assert (await client.post("/v1/experts", json=body)).status_code in (403, 422)
