"""How likely tokens were, in both shapes; a token may be a part of a character."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.backbones.spelling import Spelling
from server.api.logprobs import Places, chat_logprobs, completion_logprobs
from server.engine.generation.messages import Written
from tests.server.api.writing_material import CHAT, COMPLETE, chat, ok, prompt
from tests.tokenizers_by_byte import bytewise


@pytest.mark.anyio
async def test_chat_logprobs(causal):
    said = await ok(causal, CHAT, chat(logprobs=True, top_logprobs=3))
    content = said["choices"][0]["logprobs"]["content"]
    assert len(content) == said["usage"]["completion_tokens"]
    for token in content:
        assert token["logprob"] == pytest.approx(token["top_logprobs"][0]["logprob"])  # greedy
        assert len(token["top_logprobs"]) == 3


@pytest.mark.anyio
async def test_the_token_itself_is_among_the_likeliest(causal):
    said = await ok(causal, COMPLETE, prompt(logprobs=1, temperature=1.9, seed=3, ignore_eos=True))
    told = said["choices"][0]["logprobs"]
    for token, logprob, likeliest in zip(
        told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True
    ):
        assert likeliest[token] == logprob
        assert len(likeliest) <= 2
    assert any(len(likeliest) == 2 for likeliest in told["top_logprobs"])


def test_bytes_can_be_joined_and_a_broken_token_is_told_as_bytes():
    tokenizer = bytewise()
    backbone = SimpleNamespace(spelling=Spelling(tokenizer))
    ids = tokenizer("a€", add_special_tokens=False)["input_ids"]
    written = [Written(id, -0.5, ((id, -0.5), (ids[0], -2.0))) for id in ids]
    content = chat_logprobs(backbone, written)["content"]
    assert bytes(b for token in content for b in token["bytes"]).decode() == "a€"
    assert [token["token"] for token in content] == [
        "a", r"bytes:\xe2", r"bytes:\x82", r"bytes:\xac",
    ]  # fmt: skip
    told = completion_logprobs(backbone, written, Places())
    assert told["text_offset"] == [0, 1, 1, 1]
    assert told["top_logprobs"][1] == {r"bytes:\xe2": -0.5, "a": -2.0}


@given(st.text(max_size=20), st.integers(1, 3))
def test_places_count_characters(text: str, size: int):
    data, places = text.encode(), Places()
    cut = [data[i : i + size] for i in range(0, len(data), size)]
    found = [places.add(part) for part in cut]
    assert found == [len(data[: i * size].decode(errors="ignore")) for i in range(len(cut))]
