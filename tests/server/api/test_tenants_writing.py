"""Two tenants on a server that writes: no text, trace, stream, error or metric names the other."""

from __future__ import annotations

import asyncio
import json
from functools import partial

import httpx
import pytest

from server.access.keyfile import KeyStore, write_keys
from server.access.keys import PERMISSIONS, make_key
from server.app import create_app
from server.build import build_engine
from server.engine.service import EngineService
from server.settings import Settings
from tests.server.api.writing_material import CHAT, COMPLETE, chat, engine_of, prompt

pytestmark = pytest.mark.anyio
MINE, THEIRS, OURS = "reverse", "sum", "plural"
TAGS = {MINE: ["red"], THEIRS: ["blue"], OURS: ["red", "blue"]}
SECRETS = (THEIRS, "Add two numbers", "blue")
TRACED = {"routing": {"trace": "full", "router": "glider", "top_k": 3}}
ABOUT_US = [
    (COMPLETE, prompt(**TRACED)),
    (COMPLETE, prompt(**TRACED, stream=True)),
    (COMPLETE, prompt(**TRACED, n=3)),
    (CHAT, chat(**TRACED)),
    (CHAT, chat(**TRACED, stream=True)),
    (CHAT, chat(("system", "Add two numbers."), ("user", "1 and 2"), **TRACED)),
    ("/v1/embeddings", {"model": "auto", "input": ["A word."], **TRACED}),
]
ABOUT_THEM = [
    (route, {**body, **more})
    for route, body in ((COMPLETE, prompt()), (CHAT, chat()))
    for more in (
        {"model": THEIRS},
        {"model": f"{THEIRS}@1"},
        {"model": THEIRS, "stream": True},
        {"routing": {"experts": {THEIRS: 1.0}}},
        {"routing": {"allow": [THEIRS]}},
        {"routing": {"selection": {"mode": "single", "experts": [{"id": THEIRS, "weight": 1}]}}},
    )
]


@pytest.fixture
async def tenants(tmp_path):
    """What asks for each of the two, and for who may see everything."""
    library = tmp_path / "library"
    engine_of("causal", library)
    for id, tags in TAGS.items():
        path = library / id / "expert.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "tags": tags}))
    made = {
        tag or "all": make_key(f"team-{tag}", PERMISSIONS, tag and [tag])
        for tag in ("red", "blue", None)
    }
    write_keys(tmp_path / "keys.json", [key for key, _ in made.values()])
    service = EngineService(reopened(library), max_queue=100)
    app = create_app(service, keys=KeyStore(tmp_path / "keys.json"))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        yield {
            name: partial(client.request, headers={"Authorization": f"Bearer {token}"})
            for name, (_, token) in made.items()
        }


def reopened(library):
    """An engine over a library that is there."""
    return build_engine(Settings(backbone="tiny-causal", library=library, threads=1))


async def test_what_is_written_names_nothing_of_the_other(tenants):
    for route, body in ABOUT_US:
        response = await tenants["red"]("POST", route, json=body)
        assert response.status_code == 200, response.text
        heard = response.text + str(response.headers)
        assert MINE in heard, (route, body)
        for secret in SECRETS:
            assert secret not in heard or secret in json.dumps(body), (route, body, heard)


async def test_the_others_expert_writes_nothing_and_is_answered_as_one_that_is_not(tenants):
    for route, body in ABOUT_THEM:
        response = await tenants["red"]("POST", route, json=body)
        unknown = json.loads(json.dumps(body).replace(THEIRS, "nobody"))
        like = await tenants["red"]("POST", route, json=unknown)
        assert (response.status_code, response.status_code // 100) == (like.status_code, 4), body
        assert response.text.replace(THEIRS, "nobody") == like.text


async def test_metrics_name_no_text_of_the_other_while_it_is_written(tenants):
    body = prompt(model=THEIRS, max_tokens=200, ignore_eos=True, n=4)
    writing = asyncio.create_task(tenants["blue"]("POST", COMPLETE, json=body))
    seen = False
    while not writing.done():
        everything = (await tenants["all"]("GET", "/metrics")).text
        heard = (await tenants["red"]("GET", "/metrics")).text
        seen = seen or f'running_lora_adapters="{THEIRS}"' in everything
        assert f'"{THEIRS}"' not in heard
        assert "team-blue" not in heard
        await asyncio.sleep(0.01)
    assert writing.result().status_code == 200
    assert seen, "it was there to be seen"
