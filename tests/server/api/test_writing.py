"""`/v1/completions` and `/v1/chat/completions`: shapes, streams, errors, and who is let go when."""

from __future__ import annotations

import asyncio
import json

import pytest

from server.api.context import Context
from server.batch.lines import Line, answer
from server.engine.fitting import Fits
from server.errors import QueueFull
from tests.server.api.writing_material import (
    CHAT,
    COMPLETE,
    TASKS,
    chat,
    chunks,
    ok,
    prompt,
    writing_server,
)

pytestmark = pytest.mark.anyio


async def test_a_prompt_is_continued_by_the_experts_routed_for_it(writer):
    said = await ok(writer, COMPLETE, prompt(routing={"instruction": TASKS["sum"]}))
    (choice,) = said["choices"]
    assert said["object"] == "text_completion"
    assert choice["finish_reason"] in ("stop", "length")
    assert said["usage"]["completion_tokens"] <= 12
    assert said["usage"]["total_tokens"] == sum(
        said["usage"][k] for k in ("prompt_tokens", "completion_tokens")
    )
    (routed,) = said["routing"]["prompts"]
    assert routed["trace"]["instruction"] == TASKS["sum"]
    assert routed["selection"]["experts"][0]["id"] == "sum"


async def test_named_experts_write_each_their_own(writer):
    texts = {
        model: (await ok(writer, COMPLETE, prompt(model=model)))["choices"][0]["text"]
        for model in (*TASKS, writer.service.engine.backbone.id)
    }
    assert len({*texts.values()}) == len(texts)


async def test_a_stream_says_what_the_whole_answer_does(writer):
    body = prompt(
        n=2, temperature=0.9, seed=4, logprobs=2, routing={"experts": {"sum": 1, "plural": 1}}
    )
    whole = await ok(writer, COMPLETE, body)
    parts = await chunks(writer, COMPLETE, {**body, "stream_options": {"include_usage": True}})
    for choice in whole["choices"]:
        mine = [c for p in parts for c in p["choices"] if c["index"] == choice["index"]]
        assert "".join(c["text"] for c in mine) == choice["text"]
        assert mine[-1]["finish_reason"] == choice["finish_reason"]
        for name in ("tokens", "token_logprobs", "text_offset"):
            told = [x for c in mine for x in c["logprobs"][name]]
            assert (
                told == pytest.approx(choice["logprobs"][name])
                if name == "token_logprobs"
                else (told == choice["logprobs"][name])
            )
    assert parts[-1]["choices"] == []
    assert parts[-1]["usage"] == whole["usage"]
    assert (
        parts[-1]["routing"]["prompts"][0]["selection"]
        == whole["routing"]["prompts"][0]["selection"]
    )


async def test_the_last_chunk_has_the_routing_where_no_usage_follows(causal):
    parts = await chunks(causal, CHAT, chat(n=2))
    assert [("routing" in part) for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}


async def test_several_prompts_are_routed_each_on_its_own(writer):
    said = await ok(writer, COMPLETE, prompt(["One.", "Two.", "Three."], n=2))
    assert [c["index"] for c in said["choices"]] == list(range(6))
    assert len(said["routing"]["prompts"]) == 3
    assert said["choices"][0]["text"] == said["choices"][1]["text"]  # greedy


async def test_token_ids_are_a_prompt_too(causal):
    backbone = causal.service.engine.backbone
    (ids,) = backbone.tokens(["A word."])
    by_text = await ok(causal, COMPLETE, prompt("A word.", model="sum"))
    by_ids = await ok(causal, COMPLETE, prompt(ids, model="sum"))
    assert by_ids["choices"] == by_text["choices"]


async def test_a_selection_is_answered_again(writer):
    first = await ok(
        writer, COMPLETE, prompt(routing={"mode": "token", "experts": {"sum": 1, "plural": 2}})
    )
    selection = first["routing"]["prompts"][0]["selection"]
    assert selection["mode"] == "token"
    again = await ok(writer, COMPLETE, prompt(routing={"selection": selection}))
    assert again["choices"] == first["choices"]


async def test_a_full_trace_tells_what_tokens_chose(writer):
    experts = {"experts": {"sum": 1, "plural": 2}, "mode": "token", "trace": "full", "top_k": 1}
    said = await ok(writer, COMPLETE, prompt(routing=experts, ignore_eos=True))
    sites = said["routing"]["prompts"][0]["trace"]["tokens"]
    backbone = writer.service.engine.backbone
    seen = {site["site"] for site in sites}
    assert seen == set(backbone.sites)  # of the decoder too
    assert all(sum(site["experts"].values()) == pytest.approx(1, abs=1e-3) for site in sites)
    parts = await chunks(writer, COMPLETE, prompt(routing=experts, ignore_eos=True))
    assert parts[-1]["routing"]["prompts"][0]["trace"]["tokens"] == sites
    question = {"type": "choice", "choices": [{"value": "one"}, {"value": "two"}]}
    body = {"model": "auto", "input": "1", "questions": [question], "routing": experts}
    (asked,) = (await ok(writer, "/v1/decisions", body))["routing"]["questions"]
    assert {site["site"] for site in asked["tokens"]} == seen


async def test_the_trace_of_all_tokens_spells_what_was_read_and_written(writer):
    experts = {"experts": {"sum": 1, "plural": 2}, "mode": "token", "trace": "tokens"}
    said = await ok(writer, COMPLETE, prompt(routing=experts, ignore_eos=True))
    trace, backbone = said["routing"]["prompts"][0]["trace"], writer.service.engine.backbone
    written = trace["spelled"][-trace["written"] :]
    assert "".join(written).startswith(said["choices"][0]["text"][:1])
    assert trace["written"] == said["usage"]["completion_tokens"]
    read = len(trace["spelled"]) - trace["written"] - len(backbone.start)
    assert read == said["usage"]["prompt_tokens"]
    for site in trace["tokens"]:
        name, (count,) = site["site"], {len(w) for w in site["weights"].values()}
        ended = site["first"] + count
        if name in backbone.source_sites:
            assert (site["first"], count) == (0, read)
        else:  # the last token is written, and nothing is asked after it
            assert ended == len(trace["spelled"]) - 1
            if name not in backbone.anatomy.kept_sites:
                assert site["first"] == (read if backbone.anatomy.source else 0)
        sums = [sum(ws) for ws in zip(*site["weights"].values(), strict=True)]
        assert sums == pytest.approx([1.0] * count, abs=1e-3)


async def test_what_a_token_chose_does_not_depend_on_what_came_after_it(causal):
    def told(said):
        (routed,) = said["routing"]["prompts"]
        return {s["site"]: (s["first"], s["weights"]) for s in routed["trace"]["tokens"]}

    experts = {"experts": {"sum": 1, "plural": 2}, "mode": "token", "trace": "tokens"}
    body = prompt(routing=experts, ignore_eos=True, temperature=0)
    short, long = [told(await ok(causal, COMPLETE, {**body, "max_tokens": n})) for n in (3, 12)]
    assert short.keys() == long.keys()
    for site, (first, weights) in short.items():
        assert first == long[site][0]
        for id, column in weights.items():
            assert column == pytest.approx(long[site][1][id][: len(column)], abs=2e-4)


async def test_a_stream_tells_who_wrote_each_token_as_it_comes(writer):
    experts = {"experts": {"sum": 1, "plural": 2}, "mode": "token", "trace": "tokens"}
    body = prompt(routing=experts, ignore_eos=True, temperature=0)
    quiet = {**body, "model": "reverse", "routing": {}}
    beside = {**body, "routing": {**experts, "trace": "none"}}
    others = [chunks(writer, COMPLETE, other) for other in (quiet, beside, quiet)]
    parts, *unheard = await asyncio.gather(chunks(writer, COMPLETE, body), *others)
    assert all("wrote" not in part.get("routing", {}) for told in unheard for part in told)
    wrote = [w for part in parts for w in part.get("routing", {}).get("wrote", [])]
    trace = parts[-1]["routing"]["prompts"][0]["trace"]
    backbone, written = writer.service.engine.backbone, trace["written"]
    assert len(wrote) == written
    chose = len(trace["spelled"]) - written - 1  # the place of the token that chose the first
    sites = [s for s in trace["tokens"] if s["site"] not in backbone.source_sites]
    for i, told in enumerate(wrote):
        for id, weight in told.items():
            each = [s["weights"].get(id, [0.0] * 99)[chose + i - s["first"]] for s in sites]
            assert weight == pytest.approx(sum(each) / len(each), abs=5e-4)


async def test_merged_experts_have_words_and_no_choice_by_token(writer):
    body = prompt(model="sum", routing={"trace": "tokens"}, ignore_eos=True)
    said = await ok(writer, COMPLETE, body)
    trace = said["routing"]["prompts"][0]["trace"]
    assert trace["tokens"] == []
    assert trace["written"] == said["usage"]["completion_tokens"] < len(trace["spelled"])
    assert trace["stages"][0]["stage"] == "queue"
    assert trace["stages"][-1]["stage"] == "generate"


async def test_a_text_is_told_though_nobody_has_time_to_trace_its_tokens(causal, monkeypatch):
    experts = {"experts": {"sum": 1, "plural": 2}, "mode": "token", "trace": "full"}
    queue, asked = causal.service._queue, []
    enter = queue.put

    def put(*given, **said):
        asked.append(given)
        if len(asked) > 1:
            raise QueueFull("full")
        return enter(*given, **said)

    monkeypatch.setattr(queue, "put", put)
    said = await ok(causal, COMPLETE, prompt(routing=experts, ignore_eos=True))
    assert len(asked) == 2
    assert said["usage"]["completion_tokens"] == 12
    assert said["routing"]["prompts"][0]["trace"]["tokens"] == []


async def test_a_seed_repeats_a_draw_whatever_else_is_written(writer):
    body = prompt(temperature=1.2, seed=11, max_tokens=20, ignore_eos=True, model="plural")
    alone = await ok(writer, COMPLETE, body)
    others = [ok(writer, COMPLETE, prompt(f"{i}", temperature=1.5, model=m, max_tokens=5 + i))
              for i, m in enumerate([*TASKS] * 3)]  # fmt: skip
    together = await asyncio.gather(ok(writer, COMPLETE, body), *others)
    assert together[0]["choices"] == alone["choices"]
    other = await ok(writer, COMPLETE, {**body, "seed": 12})
    assert other["choices"] != alone["choices"]


async def test_stop_texts_end_and_are_left_out(writer):
    free = (await ok(writer, COMPLETE, prompt(ignore_eos=True)))["choices"][0]["text"]
    stop = free[4:6]
    body = prompt(ignore_eos=True, stop=[stop, "never said"])
    (choice,) = (await ok(writer, COMPLETE, body))["choices"]
    assert choice == {"index": 0, "text": free[: free.index(stop)], "logprobs": None,
                      "finish_reason": "stop"}  # fmt: skip
    parts = await chunks(writer, COMPLETE, body)
    assert "".join(c["text"] for p in parts for c in p["choices"]) == choice["text"]


REFUSED = [
    ({"temperature": 3}, 422, "temperature"),
    ({"temperature": "hot"}, 422, "temperature"),
    ({"top_p": 0}, 422, "top_p"),
    ({"n": 0}, 422, "n"),
    ({"n": 1000}, 422, "n"),
    ({"frequency_penalty": 9}, 422, "frequency_penalty"),
    ({"logit_bias": {"5": 1000}}, 422, "logit_bias.5"),
    ({"logit_bias": {"5000": 1}}, 422, "logit_bias"),
    ({"stop_token_ids": [5000]}, 422, "stop_token_ids"),
    ({"stop": [""]}, 422, "stop"),
    ({"max_tokens": 0}, 422, "max_tokens"),
    ({"echo": True}, 422, "echo"),
    ({"suffix": "x"}, 422, "suffix"),
    ({"best_of": 4}, 422, "best_of"),
    ({"use_beam_search": True}, 422, "use_beam_search"),
    ({"store": True}, 422, "store"),
    ({"stream_options": {"include_usage": True}}, 422, None),
    ({"prompt": ""}, 422, "prompt"),
    ({"prompt": [[]]}, 422, "prompt[0]"),
    ({"prompt": [99999]}, 422, "prompt"),
    ({"prompt": 7}, 422, "prompt"),
    ({"routing": {"truncate": True}}, 422, "routing.truncate"),
    ({"model": "nobody"}, 404, "model"),
    ({"routing": {"experts": {"nobody": 1}}}, 404, "routing"),
]


@pytest.mark.parametrize(("said", "status", "param"), REFUSED, ids=[str(r) for r, *_ in REFUSED])
async def test_what_cannot_be_done_is_refused_by_name(causal, said, status, param):
    response = await causal.post(COMPLETE, json=prompt() | said)
    assert response.status_code == status, response.text
    assert response.json()["error"]["param"] == param


async def test_beyond_the_context_is_told_with_numbers(causal):
    response = await causal.post(COMPLETE, json=prompt("x" * 200, max_tokens=100))
    error = response.json()["error"]
    assert response.status_code == 400
    assert error["code"] == "context_length_exceeded"
    assert error["param"] == "max_tokens"
    assert all(number in error["message"] for number in ("201", "100", "256", "55"))
    response = await causal.post(CHAT, json=chat(("user", "x" * 300)))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "messages"


async def test_an_encoder_says_that_it_does_not_write(client):
    response = await client.post(COMPLETE, json=prompt())
    assert response.status_code == 422
    assert "writes no text" in response.json()["error"]["message"]


async def test_more_than_memory_holds_is_refused_not_tried(tmp_path):
    async with writing_server("causal", tmp_path, kv_bytes=1 << 20) as client:
        response = await client.post(COMPLETE, json=prompt(n=100, max_tokens=200))
        assert response.status_code == 503
        assert response.headers["X-Should-Retry"] == "false"  # another try would be in vain
        assert "Retry-After" not in response.headers
        assert "kv_bytes" in response.json()["error"]["message"]
        await ok(client, COMPLETE, prompt())


async def test_a_line_that_never_fits_ends_no_run_of_lines(tmp_path):
    async with writing_server("causal", tmp_path, kv_bytes=1 << 20) as client:
        line = Line(custom_id="a", method="POST", url=COMPLETE, body=prompt(n=100, max_tokens=200))
        service = client.service
        reply = await answer(Context(service, Fits(service.engine, service.change)), line, "1")
        assert reply.status == 503


async def test_more_prompts_than_fit_wait_for_each_other(tmp_path):
    async with writing_server("causal", tmp_path, kv_bytes=1 << 20, max_rows=3) as client:
        said = await asyncio.gather(*(ok(client, COMPLETE, prompt(f"{i}")) for i in range(12)))
        alone = [await ok(client, COMPLETE, prompt(f"{i}")) for i in range(12)]
        assert [s["choices"] for s in said] == [a["choices"] for a in alone]


async def test_a_deadline_ends_a_text(causal):
    body = prompt(max_tokens=200, ignore_eos=True, routing={"timeout_ms": 30})
    response = await causal.post(COMPLETE, json=body)
    assert response.status_code == 504
    await nothing_left(causal)


async def nothing_left(client, seconds: float = 5.0) -> None:
    engine = client.service.engine
    loop = engine.generation
    async with asyncio.timeout(seconds):
        while loop.busy or any(slot.pins for slot in engine.tiers.device._slots.values()):
            await asyncio.sleep(0.01)
    assert loop.budget.used == 0
    assert loop.batch.refs == []


async def test_an_expert_that_is_removed_finishes_what_it_writes(causal):
    body = prompt(model="sum", max_tokens=200, ignore_eos=True)
    whole = await ok(causal, COMPLETE, body)
    writing = asyncio.create_task(ok(causal, COMPLETE, body))
    loop = causal.service.engine.generation
    while not loop.batch.rows:
        await asyncio.sleep(0.001)
    removed = await causal.delete("/v1/experts/sum")
    assert removed.status_code in (200, 204)
    assert (await writing)["choices"] == whole["choices"]
    gone = await causal.post(COMPLETE, json=body)
    assert gone.status_code == 404
    await nothing_left(causal)


async def test_decisions_rank_choices_and_embeddings_are_adapted(writer):
    question = {"type": "choice", "instructions": TASKS["sum"],
                "choices": [{"value": "one"}, {"value": "twenty"}, {"value": "3"}]}  # fmt: skip
    said = await ok(writer, "/v1/decisions", {"model": "auto", "input": "1 + 2", "questions": [
        question, {"type": "predicate", "instructions": "It is a sum."},
        {"type": "choice", "choices": [{"value": "é"}, {"value": "ü"}]},
    ]})  # fmt: skip
    choice, predicate, refused = said["answers"]
    assert sum(p["probability"] for p in choice["probabilities"]) == pytest.approx(1)
    assert 0 < predicate["probability"] < 1
    assert refused["type"] == "refusal"  # neither is a token of this tokenizer
    assert "cannot tell" in refused["reason"]
    vectors = [
        (await ok(writer, "/v1/embeddings", {"model": model, "input": "1 + 2"}))["data"][0][
            "embedding"
        ]
        for model in ("sum", "plural")
    ]
    assert vectors[0] != pytest.approx(vectors[1], abs=1e-3)


TOLD = (
    "sailplane_generated_tokens_total",
    "sailplane_time_to_first_token_seconds_count 1.0",
    "sailplane_running_rows 0.0",
    "sailplane_kv_used_ratio 0.0",
    "sailplane_lora_requests_info{max_lora=",
    "sailplane_inter_token_seconds_count",
)


async def test_metrics_tell_of_what_is_written(causal):
    await ok(causal, COMPLETE, prompt(model="sum"))
    text = (await causal.get("/metrics")).text
    for line in TOLD:
        assert line in text


ROUTED = {'routing_mode_total{mode="token"}': 1, "input_tokens_total": 9,
          'experts_selected_total{expert="sum"}': 1, "routing_entropy_count": 1}  # fmt: skip


@pytest.mark.parametrize("trace", ["none", "full"])
async def test_a_text_is_counted_once_whether_its_tokens_are_traced_or_not(causal, trace):
    selection = {"mode": "token", "token_router": "gate",
                 "experts": [{"id": id, "weight": 0.5} for id in ("sum", "plural")]}  # fmt: skip
    said = await ok(causal, COMPLETE, prompt("1 + 2 = ", routing={"selection": selection,
                                                                   "trace": trace}))  # fmt: skip
    told = said["routing"]["prompts"][0]["trace"]
    assert bool(told and told["tokens"]) == (trace == "full")
    lines = (await causal.get("/metrics")).text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert {name: float(values[f"sailplane_{name}"]) for name in ROUTED} == ROUTED


@pytest.mark.parametrize("stream", [True, False])
async def test_a_step_that_fails_is_told_also_in_a_stream(causal, monkeypatch, stream):
    loop = causal.service.engine.generation
    monkeypatch.setattr(type(loop.batch.decks[0]), "step", lambda *_: 1 / 0)
    body = prompt(ignore_eos=True, stream=stream)
    if stream:
        response = await causal.post(COMPLETE, json=body)
        last = response.text.strip().split("\n\n")[-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "internal_error"
        assert "[DONE]" not in response.text
    else:
        assert (await causal.post(COMPLETE, json=body)).status_code == 500
    monkeypatch.undo()
    told = 'sailplane_errors_total{code="internal_error",route="/v1/completions"} 1.0'
    assert told in (await causal.get("/metrics")).text.splitlines()
    await nothing_left(causal)
    await ok(causal, COMPLETE, prompt())
