"""Continuous batching writes what each prompt would be answered alone, whoever comes and goes."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
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
    assert loop.batch.banks.ids == []
    assert not any(slot.pins for slot in stage.tiers.device._slots.values())
