"""Prompts that begin alike are answered as if each had been read from its start."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experts.scope import Scope
from server.engine.generation.loop import GenerationLoop
from tests.language_models import (
    Listener,
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
    "one, half": single("a", 0.5),
    "two merged": merged({"a": 0.3, "c": 0.7}),
    "by gates": per_token(["a", "b", "c"]),
}
STEMS = prompts(31, 40, 24)
BYTES = 1 << 22


@pytest.fixture(scope="module")
def causal(stage: Stage) -> Stage:
    if stage.family != "causal":
        pytest.skip("a source is read whole, by layers that see all of it")
    return stage


@pytest.mark.parametrize("name", SELECTIONS)
def test_the_third_prompt_that_begins_alike_reads_only_what_is_new(
    causal: Stage, name: str
) -> None:
    loop, selection = causal.loop(prefix_bytes=BYTES), SELECTIONS[name]
    reused: list[int] = []
    for i in range(3):
        prompt = [*STEMS[0], *prompts(40 + i, 5)[0]]
        told = ask(loop, prompt, selection)
        finish(loop)
        reused.append(told.reused)
        assert told.tokens() == causal.slowly(prompt, selection, 12)
    assert reused == [0, 0, len(STEMS[0])]


def test_who_reads_decides_what_may_be_used_again(causal: Stage) -> None:
    loop, prompt = causal.loop(prefix_bytes=BYTES), [*STEMS[0], 7, 8]
    reused: dict[str, int] = {}
    for name in ("one", "one", *SELECTIONS):
        told = ask(loop, prompt, SELECTIONS[name])
        finish(loop)
        assert told.tokens() == causal.slowly(prompt, SELECTIONS[name], 12)
        reused[name] = told.reused
    assert {name for name, count in reused.items() if count} == {"one"}


def test_prompts_that_are_read_together_keep_their_beginning_once(
    causal: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, copied = causal.loop(prefix_bytes=BYTES), []
    for deck in loop.batch.decks:
        kept = deck.own.kept
        monkeypatch.setattr(
            deck.own, "kept", lambda slot, n, kept=kept: copied.append(n) or kept(slot, n)
        )
    for i in range(9, 15):
        ask(loop, [*STEMS[0], 7, i], single("a"))
    finish(loop)
    assert copied == [len(STEMS[0]) + 1]


def test_another_caller_learns_nothing_of_what_was_asked(causal: Stage) -> None:
    loop, prompt = causal.loop(prefix_bytes=BYTES), [*STEMS[0], 7, 8]
    scopes = [Scope(frozenset({"team-a"}))] * 3 + [Scope(frozenset({"team-b"}))]
    reused: list[int] = []
    for scope in scopes:
        told = ask(loop, prompt, single("a"), scope=scope)
        finish(loop)
        reused.append(told.reused)
    assert reused == [0, 0, len(prompt) - 1, 0]


def test_an_expert_in_the_place_of_another_reads_for_itself(causal: Stage) -> None:
    loop, prompt = causal.loop(prefix_bytes=BYTES), [*STEMS[0], 7, 8]
    for _ in range(3):
        finish_one(loop, prompt)
    mine, other = causal.experts["a@1"], causal.experts["b@1"]
    causal.tiers.drop("a")
    try:
        causal.experts["a@1"] = replace(other, id="a@1")
        told = finish_one(loop, prompt)
        assert told.reused == 0
        assert told.tokens() == causal.slowly(prompt, single("a"), 12)
    finally:
        causal.experts["a@1"] = mine
        causal.tiers.drop("a")


def finish_one(loop: GenerationLoop, prompt: list[int]) -> Listener:
    told = ask(loop, prompt, single("a"))
    finish(loop)
    return told


ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, 8),  # the step at which it arrives
        st.integers(0, 1),  # how it begins
        st.integers(1, 24),  # tokens of that beginning
        st.integers(1, 4),  # tokens of its own
        st.sampled_from(sorted(SELECTIONS)),
        st.integers(1, 2),  # texts
    ),
    min_size=2,
    max_size=8,
)


@settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(arrivals=ARRIVALS, budget=st.sampled_from([BYTES, 1 << 14]))
def test_in_any_mixture_each_is_answered_as_if_alone(causal: Stage, arrivals, budget: int) -> None:
    loop = causal.loop(prefix_bytes=budget, chunk_tokens=10)
    asked, step = [], 0
    while loop.busy or any(at >= step for at, *_ in arrivals):
        for i, (at, stem, shared, own, name, count) in enumerate(arrivals):
            if at == step:
                prompt = [*STEMS[stem][:shared], *prompts(60 + i, own)[0]]
                told = ask(loop, prompt, SELECTIONS[name], max_tokens=4, count=count)
                asked.append((told, tuple(prompt), name, count))
        loop.step()
        step += 1
    for told, prompt, name, count in asked:
        expected = causal.slowly(prompt, SELECTIONS[name], 4)
        assert [told.tokens(i) for i in range(count)] == [expected] * count
    assert loop.prefixes.nbytes <= budget
    assert loop.budget.used == 0


def test_a_prompt_that_is_all_kept_still_says_what_follows_it(causal: Stage) -> None:
    loop = causal.loop(prefix_bytes=BYTES)
    texts = []
    for _ in range(3):
        told = ask(loop, STEMS[1], single("a"))
        finish(loop)
        texts.append(told.tokens())
    assert texts[0] == texts[1] == texts[2]
    assert told.reused == len(STEMS[1]) - 1


def test_a_source_is_never_read_in_parts(stage: Stage) -> None:
    if stage.family == "causal":
        pytest.skip("it has none")
    loop = stage.loop(prefix_bytes=BYTES)
    for _ in range(3):
        told = ask(loop, STEMS[0], single("a"))
        finish(loop)
        assert told.reused == 0
    assert loop.prefixes.nbytes == 0
