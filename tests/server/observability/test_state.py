"""What `/metrics` tells of the state of a server: the build, the library, readiness, memory."""

import json
import re

import pytest

from server.app import VERSION

pytestmark = pytest.mark.anyio
LIMITED = {"X-Sailplane-Tags": "public"}


async def value(client, name, **headers):
    told = (await client.get("/metrics", headers=headers)).text
    found = re.search(rf"^sailplane_{re.escape(name)} (\S+)$", told, re.M)
    return float(found[1]) if found else None


async def test_it_says_what_is_served_by_which_version(client, engine):
    labels = {
        "backbone": engine.backbone.id, "device": "cpu", "dtype": "float32",
        "embedder": engine.embedder.id, "version": VERSION,
    }  # fmt: skip
    told = ",".join(f"{name}={json.dumps(text)}" for name, text in labels.items())
    assert await value(client, f"build_info{{{told}}}") == 1


async def test_the_library_is_counted_and_its_generation_follows(client, adapters):
    assert await value(client, 'library_experts{state="served"}') == 2
    assert await value(client, 'library_experts{state="bad"}') == 1
    before = (await client.get("/v1/experts")).json()["generation"]
    assert await value(client, f'library_info{{generation="{before}"}}') == 1
    body = {"source": str(adapters / "flight"), "id": "flight"}
    added = await client.post("/v1/experts", json=body)
    assert added.status_code == 201
    assert await value(client, 'library_experts{state="served"}') == 3
    assert await value(client, f'library_info{{generation="{before}"}}') is None
    after = (await client.get("/v1/experts")).json()["generation"]
    assert await value(client, f'library_info{{generation="{after}"}}') == 1


async def test_a_limited_caller_is_told_nothing_of_the_whole_library(client):
    told = (await client.get("/metrics", headers=LIMITED)).text
    assert "sailplane_library" not in told
    assert "process_resident_memory_bytes" in told
    assert not re.search("weather|mood|broken", told)


async def test_readiness_follows_the_service(client, service):
    assert await value(client, "ready") == 1
    service.retire()
    assert await value(client, "ready") == 0


async def test_the_queue_and_the_tiers_tell_their_limits(client, service):
    assert await value(client, "queue_limit_samples") == 1000
    for tier, cache in (
        ("device", service.engine.tiers.device),
        ("host", service.engine.tiers.host),
    ):
        assert await value(client, f'expert_cache_limit_bytes{{tier="{tier}"}}') == cache.budget


async def test_a_load_that_fails_is_counted_in_every_tier_it_failed(client, library, decision):
    weights = library / "mood" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"gone")
    body = {"model": "mood", "input": "x"}
    assert (await client.post("/v1/embeddings", json=body)).status_code == 422
    for tier in ("device", "host"):
        assert await value(client, f'expert_cache_failures_total{{tier="{tier}"}}') == 1


async def test_instructions_are_counted_by_who_wrote_them(client, decision):
    assert (await client.post("/v1/decisions", json=decision)).status_code == 200
    assert await value(client, 'instructions_total{writer="caller"}') == 1
    del decision["questions"][0]["instructions"]
    assert (await client.post("/v1/decisions", json=decision)).status_code == 200
    assert await value(client, 'instructions_total{writer="template"}') == 1
