"""The writer against a real endpoint that answers well, hangs, errs, babbles or is not there."""

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator

import pytest

from routers.instructions import template
from routers.types import Query
from server.instructions import openai, sentences
from server.instructions.openai import MalformedReply, OpenAIWriter, prompt_of, sentence_of

from .conftest import SENTENCE, Endpoint, completion

pytestmark = pytest.mark.anyio
QUERY = Query("Grey clouds, a little drizzle.", choices=("sunny", "rainy"))


def numbered(count: int) -> list[Query]:
    return [Query(f"Text number {i}.", choices=("yes", "no")) for i in range(count)]


@pytest.fixture
async def writer(endpoint: Endpoint) -> AsyncIterator[OpenAIWriter]:
    made = OpenAIWriter(endpoint.url, "small", "key", timeout_s=0.3, concurrency=3, cache_entries=4)
    yield made
    await made.close()


async def note_of(writer: OpenAIWriter, query: Query = QUERY) -> str | None:
    (written,) = await writer.write([query])
    if written.note is not None:
        assert written == template(query, written.note)
    return written.note


async def test_a_good_answer_is_the_instruction(writer, endpoint):
    (written,) = await writer.write([QUERY])
    assert (written.text, written.writer, written.note) == (SENTENCE, "openai", None)
    assert written.sentence == SENTENCE
    assert endpoint.paths == ["/v1/chat/completions"]
    assert endpoint.headers[0]["Authorization"] == "Bearer key"
    asked = endpoint.asked[0]
    assert asked["model"] == "small"
    assert all(part in asked["messages"][-1]["content"] for part in (QUERY.input, "sunny", "rainy"))


async def test_no_key_sends_no_authorization(endpoint):
    writer = OpenAIWriter(endpoint.url, "small")
    await writer.write([QUERY])
    await writer.close()
    assert "Authorization" not in endpoint.headers[0]


async def test_the_answers_are_in_the_order_of_the_queries(writer, endpoint):
    first, second = numbered(2)
    await writer.write([first])
    endpoint.status = 500
    written = await writer.write([second, first, second])
    assert [w.note for w in written] == ["http_500", None, "http_500"]


@pytest.mark.parametrize("status", [301, 401, 429, 500, 503])
async def test_an_error_status_hands_over_to_the_template(writer, endpoint, status):
    endpoint.status = status
    assert await note_of(writer) == f"http_{status}"


async def test_a_hanging_endpoint_costs_the_timeout_and_no_more(writer, endpoint):
    endpoint.delay = 1.0
    begun = time.monotonic()
    assert await note_of(writer) == "timeout"
    assert 0.25 < time.monotonic() - begun < 0.8


async def test_an_endpoint_that_sends_its_answer_too_slowly_times_out(writer):
    async def drip(reader: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        out.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        try:
            while True:
                out.write(b" ")
                await out.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            out.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    slow = OpenAIWriter(f"http://127.0.0.1:{port}", "small", timeout_s=0.2)
    assert await note_of(slow) == "timeout"
    await slow.close()
    server.close()


async def test_a_refused_connection_is_unreachable():
    with socket.socket() as taken:  # bound and not listening: nobody can answer there
        taken.bind(("127.0.0.1", 0))
        writer = OpenAIWriter(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", "small")
        assert await note_of(writer) == "unreachable"
        await writer.close()


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Bad gateway</html>",
        b"",
        b"\xff\xfe\x00",
        b"[" * 60_000,
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"message": {}}]}',
        completion(None),
        completion(["a", "list"]),
        completion("   "),
        completion("..."),
        completion("One paragraph.\n\nAnd another one."),
        completion("Say " + "very " * 70 + "much."),
        completion("Bell\u0007 and escape \u001b[31m."),
        completion("x" * 70_000),
    ],
)
async def test_garbage_hands_over_to_the_template(writer, endpoint, body):
    endpoint.body = body
    assert await note_of(writer) == "malformed"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('"Find the mood."', "Find the mood."),
        ("  “Find   the mood.”  ", "Find the mood."),
        ("**Find the mood.**", "Find the mood."),
        ("Here is the sentence:\nFind the mood.\nI hope it helps.", "Find the mood."),
        ("Bestimme, worum es geht.", "Bestimme, worum es geht."),
    ],
)
def test_a_sentence_is_cleaned(content, sentence):
    assert sentence_of(completion(content)) == sentence


def test_a_sentence_of_exactly_the_limit_passes_and_one_more_does_not():
    longest = "a" * sentences.LONGEST_SENTENCE
    assert sentence_of(completion(longest)) == longest
    with pytest.raises(MalformedReply):
        sentence_of(completion(longest + "a"))


def test_the_prompt_is_bounded():
    prompt = prompt_of(Query("x" * 10_000, choices=tuple("y" * 1000 for _ in range(255))))
    assert prompt.count("x") == sentences.SHOWN_INPUT
    assert prompt.count("y") == sentences.SHOWN_CHOICE * sentences.SHOWN_CHOICES


async def test_what_was_written_once_is_not_asked_again(writer, endpoint):
    await writer.write([QUERY, QUERY])
    await writer.write([QUERY])
    assert len(endpoint.asked) == 1
    await writer.write([Query(QUERY.input, choices=("rainy", "sunny"))])
    assert len(endpoint.asked) == 2  # another query


async def test_the_cache_forgets_what_was_used_longest_ago(writer, endpoint):
    first, *others = numbered(5)
    for query in (first, *others[:3]):  # one after the other: answers to a batch come in any order
        await writer.write([query])
    await writer.write([first])  # used again: the oldest is now the second
    await writer.write(others[3:])
    assert len(endpoint.asked) == 5
    await writer.write([first])
    assert len(endpoint.asked) == 5
    await writer.write(others[:1])
    assert len(endpoint.asked) == 6


async def test_a_failure_is_not_kept(writer, endpoint):
    endpoint.status = 500
    assert await note_of(writer) == "http_500"
    endpoint.status = 200
    assert await note_of(writer) is None


async def test_no_more_calls_at_one_time_than_allowed(writer, endpoint):
    endpoint.delay, writer.timeout_s = 0.02, 30.0  # a busy machine may be late; this is not of that
    written = await asyncio.gather(writer.write(numbered(6)), writer.write(numbered(12)[6:]))
    assert {w.note for part in written for w in part} == {None}
    assert endpoint.busiest == 3


async def test_the_time_in_line_counts_and_is_not_the_endpoints_fault(writer, endpoint):
    endpoint.delay = 0.2
    written = await writer.write(numbered(12))
    notes = [w.note for w in written]
    assert notes.count(None) == 3
    assert notes.count("timeout") == 9
    endpoint.delay = 0.0
    assert await note_of(writer) is None  # it does not rest


async def test_after_failures_in_a_row_a_dead_endpoint_is_left_alone(writer, endpoint, caplog):
    writer.cool_down_s = 0.2
    endpoint.status = 500
    with caplog.at_level(logging.DEBUG):
        for query in numbered(openai.FAILURES):
            assert await note_of(writer, query) == "http_500"
    asked = len(endpoint.asked)
    assert await note_of(writer) == "cooling_down"
    assert len(endpoint.asked) == asked
    assert "Text number" not in caplog.text
    assert caplog.text.count("rests after 5 failures") == 1
    await asyncio.sleep(0.25)
    assert await note_of(writer) == "http_500"  # one call shows that it is still dead
    assert await note_of(writer) == "cooling_down"
    endpoint.status = 200
    await asyncio.sleep(0.25)
    assert await note_of(writer) is None
    assert await note_of(writer, Query("Something else.")) is None


async def test_hanging_counts_as_failing(writer, endpoint):
    endpoint.delay, writer.timeout_s = 0.5, 0.05
    notes = [await note_of(writer, query) for query in numbered(openai.FAILURES + 1)]
    assert notes == ["timeout"] * openai.FAILURES + ["cooling_down"]


async def test_a_success_ends_the_row_of_failures(writer, endpoint):
    for query in numbered(2 * openai.FAILURES):
        endpoint.status = 200 if query.input.endswith("3.") else 500
        assert await note_of(writer, query) != "cooling_down"
        if query.input.endswith("7."):
            break
