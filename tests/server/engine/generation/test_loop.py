"""Continuous batching writes what each prompt would be answered alone, whoever comes and goes."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.errors import DeadlinePassed, UnsoundLogits
from tests.language_models import (
    Stage,
    ask,
    finish,
    merged,
    per_token,
    prompts,
    single,
)

SELECTIONS = {
    "bare": single(None),
    "one": single("a"),
    "weak": single("b", 0.5),
    "two merged": merged({"a": 0.3, "c": 0.7}),
    "three merged": merged({"a": 0.2, "b": 0.5, "c": 0.3}, 1.4),
    "by gates": per_token(["a", "b", "c"]),
    "by arrow": per_token(["a", "c"], "arrow", 1),
}


@pytest.mark.parametrize("name", [None, "a", "b", "c"])
def test_greedy_output_is_that_of_peft(stage: Stage, name: str | None) -> None:
    for prompt in prompts(1, 1, 5, 17):
        loop = stage.loop()
        told = ask(loop, prompt, single(name), ignore_eos=False)
        finish(loop)
        assert told.error is None
        assert told.tokens() == stage.generate(stage.peft(name), prompt, 12)


@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)
def test_every_mode_is_its_slow_twin(stage: Stage, selection) -> None:
    for prompt in prompts(2, 4, 11):
        loop = stage.loop()
        told = ask(loop, prompt, selection)
        finish(loop)
        assert told.tokens() == stage.slowly(prompt, selection, 12)


@pytest.mark.parametrize("name", ["two merged", "by gates"])
def test_without_compiled_loops_the_texts_are_the_same(stage: Stage, name: str, monkeypatch):
    asked = [(prompt, stage.loop()) for prompt in prompts(3, 4, 11)]
    with_loops = [ask(loop, prompt, SELECTIONS[name]) for prompt, loop in asked]
    for _, loop in asked:
        finish(loop)
    monkeypatch.setattr("experts.native.serves", lambda _like: False)
    for (prompt, _), told in zip(asked, with_loops, strict=True):
        loop = stage.loop()
        again = ask(loop, prompt, SELECTIONS[name])
        finish(loop)
        assert again.tokens() == told.tokens()


ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, 12),  # the step at which it arrives
        st.sampled_from([1, 3, 8, 23]),  # tokens it reads
        st.sampled_from(sorted(SELECTIONS)),
        st.integers(1, 14),  # tokens it may write
        st.sampled_from([None, None, None, 1, 4]),  # steps after which its caller leaves
        st.sampled_from([1, 1, 2]),  # texts
    ),
    min_size=1,
    max_size=7,
)


@settings(
    deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(arrivals=ARRIVALS)
def test_whoever_comes_and_goes_each_is_answered_as_if_alone(stage: Stage, arrivals) -> None:
    loop = stage.loop(chunk_tokens=6)
    asked, step = {}, 0
    while loop.busy or any(at >= step for at, *_ in arrivals):
        for i, (at, length, name, most, stay, count) in enumerate(arrivals):
            if at == step:
                prompt = prompts(i, length)[0]
                told = ask(loop, prompt, SELECTIONS[name], max_tokens=most, count=count)
                asked[i] = told, prompt
            elif stay is not None and i in asked and step == at + stay:
                asked[i][0].cancel()
        loop.step()
        step += 1
    for i, (told, prompt) in asked.items():
        _, _, name, most, stay, count = arrivals[i]
        expected = alone(stage, tuple(prompt), name)[:most]
        for index in range(count):
            if stay is None:
                assert told.tokens(index) == expected
            else:
                assert told.tokens(index) == expected[: len(told.tokens(index))]
    nothing_is_left(stage, loop)


KNOWN: dict[tuple[str, tuple[int, ...], str], list[int]] = {}


def alone(stage: Stage, prompt: tuple[int, ...], name: str) -> list[int]:
    key = (stage.family, prompt, name)
    if key not in KNOWN:
        KNOWN[key] = stage.slowly(prompt, SELECTIONS[name], 14)
    return KNOWN[key]


def nothing_is_left(stage: Stage, loop) -> None:
    assert not loop.busy
    assert loop.budget.used == 0
    assert loop.batch.refs == []
    assert not any(slot.pins for slot in stage.tiers.device._slots.values())


def test_numbers_that_overflow_end_that_text_and_no_other(stage: Stage) -> None:
    loop = stage.loop()
    first, second, third = prompts(5, 4, 6, 9)
    good = ask(loop, first, single("a"), ignore_eos=True)
    bad = ask(loop, second, single("huge"), count=2, ignore_eos=True)
    other = ask(loop, third, merged({"a": 0.5, "b": 0.5}), ignore_eos=True)
    finish(loop)
    assert isinstance(bad.error, UnsoundLogits)
    assert sum(isinstance(e, Exception) for e in bad.told) == 1
    for told, prompt, selection in (
        (good, first, single("a")),
        (other, third, merged({"a": 0.5, "b": 0.5})),
    ):
        alone = ask(stage.loop(), prompt, selection, ignore_eos=True)
        finish(stage.loops[-1])
        assert told.tokens() == alone.tokens()
    # Nothing of it is left in the memory that later rows get.
    again = ask(loop, first, single("a"), ignore_eos=True)
    finish(loop)
    assert again.tokens() == good.tokens()
    nothing_is_left(stage, loop)


def test_an_expert_in_the_place_of_another_waits_for_who_writes_by_that(stage: Stage) -> None:
    loop, (first, second, third) = stage.loop(), prompts(7, 4, 6, 5)
    former, other = stage.experts["a@1"], stage.experts["b@1"]
    expected = alone(stage, tuple(first), "one"), alone(stage, tuple(third), "bare")
    told = [ask(loop, first, single("a"), max_tokens=14, ignore_eos=True) for _ in range(4)]
    loop.step()
    assert all(list(loop.batch.on(deck)) for deck in loop.batch.decks)
    stage.tiers.drop("a")
    try:
        stage.experts["a@1"] = replace(other, id="a@1")
        joins = ask(loop, second, single("a"))
        bare = ask(loop, third, single(None), max_tokens=14, ignore_eos=True)
        for _ in range(2):  # what was read last goes on first
            loop.step()
        assert bare.tokens(), "who uses neither does not wait"
        assert loop.waiting == 1
        finish(loop)
        assert joins.tokens() == stage.slowly(second, single("a"), 12)
    finally:
        stage.experts["a@1"] = former
        stage.tiers.drop("a")
    assert all(t.tokens()[: len(expected[0])] == expected[0] for t in told)
    assert bare.tokens()[: len(expected[1])] == expected[1]
    nothing_is_left(stage, loop)


def test_experts_that_cannot_be_loaded_end_that_text_and_no_other(stage: Stage, monkeypatch):
    loop, (first, second) = stage.loop(), prompts(9, 4, 5)
    told = ask(loop, first, single("a"), max_tokens=14, ignore_eos=True)
    loop.step()
    stage.tiers.drop("b")
    monkeypatch.setitem(stage.experts, "b@1", None)  # what comes of it is no error of an expert
    fails = ask(loop, second, single("b"))
    finish(loop)
    assert fails.error is not None
    assert len(told.tokens()) == 14
    monkeypatch.undo()
    stage.tiers.drop("b")
    nothing_is_left(stage, loop)


def test_who_waits_behind_one_without_room_is_told_of_the_deadline(stage: Stage) -> None:
    loop, (first, second, third) = stage.loop(max_rows=1), prompts(10, 4, 5, 6)
    told = ask(loop, first, single("a"), max_tokens=14, ignore_eos=True)
    loop.step()
    waits = ask(loop, second, single("a"))
    late = ask(loop, third, single("a"), deadline=time.monotonic())
    loop.step()
    assert isinstance(late.error, DeadlinePassed)
    assert loop.waiting == 1
    finish(loop)
    assert len(told.tokens()) == 14
    assert waits.tokens()


def test_few_rows_keep_to_one_lane_and_more_do_not(stage: Stage, monkeypatch) -> None:
    monkeypatch.setattr("server.engine.generation.batch.FEW", 3)
    loop = stage.loop()
    told = [ask(loop, p, single("a"), max_tokens=14, ignore_eos=True)
            for p in prompts(11, 4, 5, 6, 7, 4, 5, 6)]  # fmt: skip
    counts = []
    for most in (3, 6, 7):
        loop.max_rows = most
        loop.step()
        counts.append([len(list(loop.batch.on(deck))) for deck in loop.batch.decks])
    assert counts[:2] == [[3, 0], [3, 3]]
    assert sum(counts[2]) == 7
    finish(loop)
    assert all(len(t.tokens()) == 14 for t in told)


def test_what_is_read_gets_its_first_token_before_others_go_on(stage: Stage) -> None:
    loop, (first, second) = stage.loop(max_rows=2), prompts(12, 4, 5)
    stage_decks = loop.batch.decks
    told = ask(loop, first, single("a"), max_tokens=14, ignore_eos=True)
    loop.step()
    loop.step()
    loop.batch.decks = stage_decks[:1]  # both on one lane
    later = ask(loop, second, single("a"), max_tokens=14, ignore_eos=True)
    before = len(told.tokens())
    loop.step()
    assert (len(told.tokens()), len(later.tokens())) == (before, 1)
    loop.step()
    assert (len(told.tokens()), len(later.tokens())) == (before + 1, 2)
    loop.batch.decks = stage_decks
    finish(loop)


def test_a_pass_that_fails_ends_what_was_in_it_and_the_loop_goes_on(stage: Stage, monkeypatch):
    loop = stage.loop()
    told = ask(loop, prompts(6, 4)[0], single("a"), max_tokens=100, ignore_eos=True)
    loop.step()
    with monkeypatch.context() as broken:
        broken.setattr(type(loop.batch.decks[0]), "step", lambda *_: 1 / 0)
        loop.step()
    assert isinstance(told.error, ZeroDivisionError)
    nothing_is_left(stage, loop)
    after = ask(loop, prompts(6, 4)[0], single("a"))
    finish(loop)
    assert after.tokens() == stage.slowly(prompts(6, 4)[0], single("a"), 12)


def test_a_cancelled_text_is_gone_within_a_step(stage: Stage) -> None:
    loop = stage.loop()
    told = ask(loop, prompts(7, 8)[0], merged({"a": 0.5, "c": 0.5}), max_tokens=100, count=3,
               ignore_eos=True)  # fmt: skip
    loop.step()
    loop.step()
    assert len(loop.batch.rows) == 3
    told.cancel()
    loop.step()
    nothing_is_left(stage, loop)


def test_chunks_of_a_prompt_are_one_prompt(stage: Stage) -> None:
    (prompt,) = prompts(8, 40)
    for size in (1, 7, 39, 100):
        loop = stage.loop(chunk_tokens=size)
        told = ask(loop, prompt, per_token(["a", "b", "c"]))
        finish(loop)
        assert told.tokens() == stage.slowly(prompt, per_token(["a", "b", "c"]), 12)


def test_sums_of_deltas_are_what_peft_would_merge(stage: Stage) -> None:
    """Merge mode is the backbone with the exact weighted delta added to its weights."""
    weights = {"a": 0.3, "c": 0.7}
    model = stage.peft(None)
    for ref, weight in weights.items():
        adapted = stage.peft(ref)
        for name, module in adapted.base_model.model.named_modules():
            if hasattr(module, "lora_A"):
                target = model.get_submodule(name)
                with torch.no_grad():
                    target.weight += weight * module.get_delta_weight("default")
    for prompt in prompts(9, 3, 15):
        loop = stage.loop()
        told = ask(loop, prompt, merged(weights))
        finish(loop)
        assert told.tokens() == stage.generate(model, prompt, 12)
