"""The backbone writes instructions itself: as it would continue the examples, once per query."""

from __future__ import annotations

import pytest

from routers.types import Query
from server.beside import build_writer
from server.engine.messages import RoutingOptions, Sample
from server.engine.service import EngineService
from server.instructions import local
from server.instructions.local import LocalWriter, prompt_of
from server.settings import Settings
from tests.server.api.writing_material import engine_of

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["causal", "seq2seq"])
async def writing(request, tmp_path, monkeypatch):
    """A service that writes its own instructions; a tiny context holds one example."""
    monkeypatch.setattr(local, "EXAMPLES", local.EXAMPLES[1:2])
    monkeypatch.setattr(local, "HEAD", "")
    service = EngineService(engine_of(request.param, tmp_path / "library"))
    service.writer = build_writer(Settings(writer="local", local_timeout_ms=30_000), service)
    await service.start()
    yield service
    await service.drain(5)


async def test_the_sentence_is_what_the_bare_backbone_would_write(writing, monkeypatch):
    said = []
    continued = LocalWriter._continued

    async def heard(self, tokens):
        said.append(await continued(self, tokens))
        return said[-1]

    monkeypatch.setattr(LocalWriter, "_continued", heard)
    query = Query("2 + 2", "", ("4", "5"))
    backbone = writing.engine.backbone
    first, again = await writing.writer.write([query, query])
    (told,) = said
    assert first == again
    assert first.writer in ("local", "template")
    if first.writer == "local":
        assert first.text == " ".join(told.strip("\"'`*“”‘’ ").split())
        await writing.writer.write([query])
        assert len(said) == 1  # it was remembered
    else:
        assert first.note == "malformed"
    ids = backbone.tokens([prompt_of(query)])[0]
    assert backbone.text(ids).replace("[CLS]", "").startswith("Input: 12 + 30")


async def test_a_sample_is_routed_by_what_was_written(writing, monkeypatch):
    async def written(self, tokens):
        return "Add two numbers, requiring arithmetic.\n"

    monkeypatch.setattr(LocalWriter, "_continued", written)
    sample = Sample("2 + 2", options=RoutingOptions(), predict=False)
    (outcome,) = await writing.submit([sample])
    assert outcome.trace.writer == "local"
    assert outcome.trace.instruction == "Add two numbers, requiring arithmetic."
    assert outcome.trace.selection.experts[0].id == "sum"


async def test_what_does_not_fit_or_does_not_come_is_left_to_the_template(writing, monkeypatch):
    writer = writing.writer
    (long,) = await writer.write([Query("x" * 490)])
    assert (long.writer, long.note) == ("template", "too_long")
    writer.timeout_s = 0.0
    (late,) = await writer.write([Query("2 + 3")])
    assert (late.writer, late.note) == ("template", "timeout")
    writer.timeout_s = 30.0
    await writing.drain(5)


def test_an_input_stands_on_one_line():
    assert "Input: a b c\nInstruction:" in prompt_of(Query("a\n\nb\tc"))
    assert prompt_of(Query("a", "", ("é",))).endswith('Choices: ["é"]\nInstruction:')
