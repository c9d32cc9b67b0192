"""`/v1/embeddings`: OpenAI's shape, and one selection for all inputs."""

import base64

import numpy as np
import pytest

pytestmark = pytest.mark.anyio
URL = "/v1/embeddings"


async def embed(client, **body) -> dict:
    response = await client.post(URL, json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def test_the_backbones_id_gives_its_bare_vectors(client, tiny):
    texts = ["Clear skies.", "A head wind."]
    said = await embed(client, model="tiny-random", input=texts)
    expected = tiny.embed(texts).tolist()
    for data, vector in zip(said["data"], expected, strict=True):
        assert data["embedding"] == pytest.approx(vector, abs=1e-5)
    assert [data["index"] for data in said["data"]] == [0, 1]
    assert said["routing"]["selection"]["mode"] == "base"
    assert said["usage"]["prompt_tokens"] == said["usage"]["total_tokens"] == 28


async def test_base64_holds_the_same_numbers(client):
    plain = await embed(client, model="mood", input="Clear skies.")
    packed = await embed(client, model="mood", input="Clear skies.", encoding_format="base64")
    numbers = np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), dtype="<f4")
    assert numbers.tolist() == pytest.approx(plain["data"][0]["embedding"])


async def test_an_experts_id_changes_the_vectors(client):
    bare = await embed(client, model="tiny-random", input="Clear skies.", dimensions=32)
    expert = await embed(client, model="mood", input="Clear skies.")
    assert expert["data"][0]["embedding"] != pytest.approx(bare["data"][0]["embedding"], abs=1e-2)
    assert [e["id"] for e in expert["routing"]["selection"]["experts"]] == ["mood"]


async def test_all_inputs_share_the_first_ones_selection_and_it_can_be_pinned(client):
    texts = ["A text about sunny.", "A text about sad.", "A text about happy."]
    routing = {"router": "retrieval"}
    together = await embed(client, model="auto", input=texts, routing=routing)
    selection = together["routing"]["selection"]
    alone = await embed(client, model="auto", input=texts[0], routing=routing)
    assert alone["routing"]["selection"]["experts"] == selection["experts"]
    for text, data in zip(texts, together["data"], strict=True):
        pinned = await embed(client, model="auto", input=text, routing={"selection": selection})
        assert pinned["data"][0]["embedding"] == pytest.approx(data["embedding"], abs=1e-5)


async def test_truncation_is_allowed_by_name_only(client):
    long = "wind " * 100
    assert (await client.post(URL, json={"model": "mood", "input": long})).status_code == 422
    await embed(client, model="mood", input=long, routing={"truncate": True})


async def test_an_expert_that_is_removed_between_routing_and_reading_is_routed_around(
    client, service, monkeypatch
):
    engine, run, removed = service.engine, service.engine.run, []

    def run_then_remove(samples):
        results = run(samples)
        if not removed:  # after the first input was routed, before the others are read
            removed.append(results[0].trace.selection.experts[0].id)
            with engine.changing():
                engine.library.remove(removed[0])
        return results

    monkeypatch.setattr(service, "max_batch", 1)
    await embed(client, model="tiny-random", input="The batch that was begun before.")
    monkeypatch.setattr(engine, "run", run_then_remove)
    texts = ["A text about sunny.", "A text about sad."]
    said = await embed(client, model="auto", input=texts, routing={"router": "retrieval"})
    assert removed
    assert removed[0] not in [e["id"] for e in said["routing"]["selection"]["experts"]]
