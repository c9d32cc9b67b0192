"""Whatever a limited caller asks, it hears what a server would say that holds its experts alone."""

from __future__ import annotations

import asyncio
import json
import tempfile
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routers.presets import PRESETS
from server.access.keyfile import KeyStore, write_keys
from server.access.keys import PERMISSIONS, make_key
from server.api.scope import HEADER

IDS = [f"p{i}" for i in range(7)]
TAGS = ["red", "green", "blue", "grey"]
VOLATILE = {"path", "root", "created", "milliseconds", "stages", "cache", "use"}
ROUNDING = 1e-6

names = st.sampled_from([*IDS, "p0@1", "p3@1", "p3@2", "alias0", "alias1", "nobody", "p9"])
reaching = st.one_of(names, st.sampled_from([f"tag:{tag}" for tag in TAGS]))
libraries = st.fixed_dictionaries({id: st.lists(st.sampled_from(TAGS), unique=True) for id in IDS})
aliases = st.dictionaries(
    st.sampled_from(["alias0", "alias1"]), st.sampled_from([*IDS, "p0@1", "p3@1", "p5@4"])
)


@st.composite
def routings(draw):
    kind = draw(st.sampled_from(["routed", "named", "pinned"]))
    if kind == "named":
        return {"experts": dict.fromkeys(draw(st.lists(names, min_size=1, max_size=3)), 1.0)}
    if kind == "pinned":
        pinned = draw(st.lists(st.sampled_from(IDS), min_size=1, max_size=2, unique=True))
        experts = [{"id": id, "weight": 1 / len(pinned)} for id in pinned]
        return {"selection": {"mode": "single" if len(pinned) == 1 else "merge",
                              "experts": experts}}  # fmt: skip
    said = {"router": draw(st.sampled_from([n for n in PRESETS if n != "base"]))}
    if draw(st.booleans()):
        said["allow"] = draw(st.lists(reaching, min_size=1, max_size=3))
    if draw(st.booleans()):
        said["deny"] = draw(st.lists(reaching, max_size=3))
    return said


@st.composite
def asked(draw):
    """A request: method, path, body."""
    kind = draw(
        st.sampled_from(
            ["decide", "decide", "decide", "forced", "embed", "look", "place", "change"]
        )
    )
    about = draw(st.sampled_from(IDS))
    question = {"type": "choice", "instructions": f"Do the work of task{about}."}
    body = {"model": "auto", "input": f"A text about labelone{about}.", "questions": [question]}
    if kind == "decide":
        routing = {**draw(routings()), "trace": draw(st.sampled_from(["full", "tokens"]))}
        path = draw(st.sampled_from(["/v1/decisions", "/v1/route"]))
        return "POST", path, {**body, "routing": routing}
    if kind == "forced":
        return "POST", "/v1/decisions", {**body, "model": draw(names)}
    if kind == "embed":
        return "POST", "/v1/embeddings", {"model": "auto", "input": [body["input"], "Another."]}
    name = draw(names)
    if kind == "look":
        return "GET", draw(st.sampled_from(
            ["/v1/experts", "/v1/models", "/v1/aliases", f"/v1/experts/{name}",
             f"/v1/models/{name}", "/v1/routers", "/v1/map"])), None  # fmt: skip
    if kind == "place":
        return "POST", "/v1/map", {"instruction": f"Do the work of task{about}."}
    return draw(
        st.sampled_from(
            [
                ("DELETE", "/v1/experts/nobody", None),
                ("POST", f"/v1/experts/{name}/rollback", {"version": 1}),
                ("PUT", "/v1/aliases/fresh", {"expert": name}),
                ("DELETE", f"/v1/aliases/{name}", None),
            ]
        )
    )


def plain(value):
    """A response without what differs from server to server."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in VOLATILE}
    return [plain(v) for v in value] if isinstance(value, list) else value


def close(value):
    """The same, with room for the rounding of sums over more experts."""
    if isinstance(value, dict):
        return {k: close(v) for k, v in value.items()}
    if isinstance(value, list):
        return [close(v) for v in value]
    return pytest.approx(value, abs=ROUNDING) if isinstance(value, float) else value


def secrets(library, scope):
    """What nobody may hear of who is not there: ids, titles, instructions, labels, tags."""
    hidden = [id for id, tags in library.items() if not scope & {*tags}]
    said = [text for id in hidden for text in (f'"{id}', f"'{id}", f"title{id}", f"task{id}",
                                               f"labelone{id}", f"labeltwo{id}")]  # fmt: skip
    return said + [f'"{t}"' for id in hidden for t in library[id] if t not in scope]


cases = given(
    libraries, aliases, st.sets(st.sampled_from(TAGS), min_size=1, max_size=2),
    st.lists(asked(), min_size=8, max_size=8),
)  # fmt: skip


@settings(max_examples=12)
@cases
def test_a_limited_caller_hears_what_a_server_of_its_experts_alone_would_say(
    tagged_at, serve, library, names, scope, requests
):
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(compare(tagged_at, serve, Path(folder), library, names, scope, requests))


@pytest.mark.slow
@settings(max_examples=250)
@cases
def test_the_same_of_many_more_libraries(tagged_at, serve, library, names, scope, requests):
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(compare(tagged_at, serve, Path(folder), library, names, scope, requests))


@settings(max_examples=6)
@cases
def test_a_key_with_tags_hears_the_same(tagged_at, serve, library, names, scope, requests):
    key, token = make_key("tenant", PERMISSIONS, scope)
    with tempfile.TemporaryDirectory() as folder:
        write_keys(Path(folder) / "keys.json", [key])
        keyed = partial(serve, keys=KeyStore(Path(folder) / "keys.json"))
        said = {"Authorization": f"Bearer {token}"}
        asyncio.run(
            compare(tagged_at, keyed, Path(folder), library, names, scope, requests, said)
        )  # fmt: skip


async def compare(tagged_at, serve, folder, library, names, scope, requests, headers=None):
    seen = {id: tags for id, tags in library.items() if scope & {*tags}}
    stands = {n: r for n, r in names.items() if r.partition("@")[0] in seen and r[2:] != "@4"}
    whole, alone = (
        tagged_at(folder / "whole", library, names),
        tagged_at(folder / "alone", seen, stands),
    )
    headers = headers or {HEADER: ",".join(sorted(scope))}
    async with serve(whole) as ours, serve(alone) as theirs:
        for method, path, body in requests:
            told = await ours.request(method, path, json=body, headers=headers)
            expected = await theirs.request(method, path, json=body, headers=headers)
            assert told.status_code == expected.status_code, (path, told.text, expected.text)
            if told.content:
                assert plain(told.json()) == close(plain(expected.json())), (path, body)
            sent = path + json.dumps(body)
            for secret in secrets(library, scope):
                if secret.strip("\"'") not in sent:
                    assert secret not in told.text, (path, body)
