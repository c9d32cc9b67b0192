"""What the console offers to copy is the request that it sent."""

from __future__ import annotations

import json
import shlex
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.console.snippets import as_curl, as_openai

BASE = "http://127.0.0.1:8080"
text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
bodies = st.fixed_dictionaries(
    {"model": text, "input": text, "questions": st.lists(st.dictionaries(text, text), max_size=2)},
    optional={"routing": st.dictionaries(text, st.floats(0, 1) | text | st.none(), max_size=3)},
)


@given(bodies)
def test_a_shell_sends_the_very_body(body):
    words = shlex.split(as_curl(BASE, "POST", "/v1/decisions", body).replace("\\\n", " "))
    assert words[:3] == ["curl", "-s", f"{BASE}/v1/decisions"]
    assert json.loads(words[words.index("-d") + 1]) == body


@given(bodies)
def test_the_program_sends_the_very_body(body):
    sent = {}

    class Client:
        class decisions:
            create = staticmethod(
                lambda extra_body=None, **given: sent.update(given, **(extra_body or {}))
            )

    program = as_openai(BASE, "POST", "/v1/decisions", body)
    program = program.split("client = ", 1)[1].split("\n", 1)[1].replace("print(said)", "")
    exec(program, {"client": Client})
    assert sent == body


def test_a_key_is_never_in_it():
    curl = as_curl(BASE, "DELETE", "/v1/experts/mine", keyed=True)
    assert '-H "Authorization: Bearer $SAILPLANE_KEY"' in curl
    assert curl.startswith("curl -s -X DELETE")
    assert 'os.environ["SAILPLANE_KEY"]' in as_openai(
        BASE, "POST", "/v1/embeddings", {}, keyed=True
    )


def test_a_stream_is_shown_as_it_comes():
    assert as_curl(BASE, "POST", "/v1/completions", {}, streams=True).startswith("curl -sN")
    assert "for part in said" in as_openai(BASE, "POST", "/v1/completions", {"stream": True})


def test_what_lies_outside_the_api_has_no_program():
    assert as_openai(BASE, "GET", "/metrics") is None


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("GET", "/v1/experts", None), ("POST", "/v1/map", {"instruction": 'Say "so".'}),
     ("DELETE", "/v1/experts/mine", None)],
)  # fmt: skip
def test_a_route_of_our_own_goes_by_the_clients_plain_calls(method, path, body):
    sent = []
    client = SimpleNamespace(**{
        name: lambda where, *, cast_to, body=None, name=name: sent.append((name, where, body))
        for name in ("get", "post", "delete")
    })  # fmt: skip
    program = as_openai(BASE, method, path, body)
    program = program.split("client = ", 1)[1].split("\n", 1)[1].replace("print(said)", "")
    exec(program, {"client": client})
    assert sent == [(method.lower(), path.removeprefix("/v1"), body)]


@pytest.mark.parametrize(
    "path", ["/v1/decisions", "/v1/completions", "/v1/chat/completions", "/v1/embeddings"]
)
def test_every_call_is_one_of_the_client(path):
    from openai import OpenAI

    call = as_openai(BASE, "POST", path, {}).split("said = client.", 1)[1].split("(", 1)[0]
    found = OpenAI(base_url=BASE, api_key="none")
    for name in call.split("."):
        found = getattr(found, name)
    assert callable(found)
