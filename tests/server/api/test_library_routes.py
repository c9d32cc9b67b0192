"""`/v1/models`, `/v1/experts` and vLLM's adapter routes: the library, live."""

import pytest

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
    assert mood["routable"] is True
    assert mood == (await client.get("/v1/experts/mood")).json()
    (bad,) = listed["bad"]
    assert bad["name"] == "broken"
    assert "adapter_model.safetensors" in bad["reason"]


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
    assert (await client.get("/v1/experts/bare")).json()["routable"] is False
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
