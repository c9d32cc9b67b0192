"""Which samples get an instruction written, and what becomes of it in answers and metrics."""

import asyncio
import time
from dataclasses import replace

import pytest

from routers.instructions import Instruction, template
from routers.presets import PRESETS
from routers.types import Chosen, Selection
from server.beside import build_writer
from server.engine.messages import Choice, Question, RoutingOptions, Sample, Shared
from server.engine.routing import presets_with_default
from server.engine.service import EngineService
from server.errors import DeadlinePassed
from server.instructions.fill import unsaid, with_instructions
from server.instructions.openai import OpenAIWriter
from server.settings import Settings, SettingsError

from .conftest import SENTENCE

pytestmark = pytest.mark.anyio
ALL = presets_with_default("sailplane")
CHOICES = (Choice("sunny"), Choice("rainy", "it pours"))
SILENT = Sample("Grey clouds.", Question("choice", choices=CHOICES))
PINNED = Selection(mode="single", experts=(Chosen(id="weather", weight=1.0),))


def with_options(**options: object) -> Sample:
    return Sample(SILENT.input, SILENT.question, options=RoutingOptions(**options))


class Slow:
    """A writer that never comes back."""

    name = "openai"

    async def write(self, queries: object) -> list[Instruction]:
        await asyncio.sleep(60)
        return []

    async def close(self) -> None:
        pass


def test_a_question_without_instructions_is_written_for():
    query = unsaid(SILENT, ALL)
    assert query is not None
    assert (query.input, query.choices) == ("Grey clouds.", ("sunny", "rainy: it pours"))


@pytest.mark.parametrize(
    "sample",
    [
        Sample("Grey clouds.", Question("choice", "What is it like?", CHOICES)),
        with_options(instruction="Tell the weather."),
        with_options(experts={"weather": 1.0}),
        with_options(selection=PINNED),
        with_options(router="dam"),
        with_options(router="base"),
        with_options(router="no such router"),
        Sample("Grey clouds.", SILENT.question, model="weather"),
        Sample("Grey clouds.", model="tiny-random"),
    ],
)
def test_what_needs_no_writing_is_left_alone(sample):
    assert unsaid(sample, ALL) is None


async def test_samples_stay_in_order_and_only_the_silent_change(endpoint):
    writer = OpenAIWriter(endpoint.url, "small")
    said = Sample("Grey clouds.", Question("choice", "What is it like?", CHOICES))
    filled = await with_instructions([said, SILENT, said], writer, ALL)
    await writer.close()
    assert [filled[0], filled[2]] == [said, said]
    assert filled[1].written == Instruction(SENTENCE, "openai")
    assert filled[1].question == SILENT.question


async def test_of_samples_that_share_a_selection_the_first_alone_is_written_for(endpoint):
    shared, other = Shared(), Shared()
    held = [shared, None, shared, other, shared, other]
    samples = [replace(SILENT, shared=each) for each in held]
    writer = OpenAIWriter(endpoint.url, "any")
    filled = await with_instructions(samples, writer, ALL)
    await writer.close()
    assert [s.written is not None for s in filled] == [True, True, False, True, False, False]


async def test_half_of_the_time_left_is_kept_for_answering():
    begun = time.monotonic()
    (filled,) = await with_instructions([SILENT], Slow(), ALL, begun + 0.2)
    assert 0.08 < time.monotonic() - begun < 0.19
    query = unsaid(SILENT, ALL)
    assert query is not None
    assert filled.written == template(query, "timeout")


async def test_what_was_written_routes_and_stands_in_the_trace(engine, endpoint):
    writer = OpenAIWriter(endpoint.url, "small")
    service = EngineService(engine, writer=writer)
    await service.start()
    (outcome,) = await service.submit([SILENT])
    (plain,) = engine.run([SILENT])
    await service.drain(5)
    trace = outcome.trace
    assert (trace.instruction, trace.writer, trace.writer_note) == (SENTENCE, "openai", None)
    assert all("instruction" in c.views for c in trace.candidates)
    assert all("instruction" not in c.views for c in plain.trace.candidates)
    assert plain.trace.writer == "template"


async def test_a_fallback_is_answered_traced_and_counted(engine, endpoint):
    endpoint.status = 500
    service = EngineService(engine, writer=OpenAIWriter(endpoint.url, "small"))
    await service.start()
    (outcome,) = await service.submit([SILENT])
    await service.drain(5)
    assert sum(outcome.answer.probabilities) == pytest.approx(1)
    assert (outcome.trace.writer, outcome.trace.writer_note) == ("template", "http_500")
    counted = 'sailplane_routing_fallback_total{reason="instruction_writer"} 1.0'
    assert counted in service.metrics.render().decode()


async def test_the_deadline_and_the_drain_hold_while_the_writer_hangs(engine):
    service = EngineService(engine, writer=Slow())
    await service.start()
    with pytest.raises(DeadlinePassed):
        await service.submit([SILENT], deadline=time.monotonic())
    hanging = asyncio.create_task(service.submit([SILENT], deadline=time.monotonic() + 3))
    await asyncio.sleep(0.05)
    await service.drain(5)
    (outcome,) = await hanging  # it was let in before the drain
    assert outcome.trace.writer_note == "timeout"


async def test_the_settings_choose_the_writer(service):
    assert build_writer(Settings(), service) is None
    asked = Settings(writer="openai", openai_model="m", openai_timeout_ms=1500)
    writer = build_writer(asked, service)
    assert isinstance(writer, OpenAIWriter)
    assert (writer.model, writer.timeout_s) == ("m", 1.5)
    await writer.close()
    with pytest.raises(SettingsError, match="'tiny-random' does not"):
        build_writer(Settings(writer="local"), service)


def test_every_preset_that_reads_instructions_is_written_for():
    asked = {n for n in PRESETS if unsaid(with_options(router=n), ALL) is not None}
    assert asked == {"sailplane", "glider", "glider-3", "glider-100"}
