"""What may be drawn is what transformers' own processors leave; what is drawn follows the odds."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from server.engine.generation.messages import Sampling
from server.engine.generation.sampling import Drawing, draw, probabilities, sound

V = 12
RULES = st.builds(
    Sampling,
    max_tokens=st.just(5),
    temperature=st.floats(0.2, 2),
    top_p=st.sampled_from([0.05, 0.3, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 3, V, 50]),
    min_p=st.sampled_from([0.0, 0.1, 0.9]),
)


def logits(seed: int, rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, V, generator=torch.Generator().manual_seed(seed)).double() * 2


@given(rules=st.lists(RULES, min_size=1, max_size=4), seed=st.integers(0, 99))
def test_the_odds_are_those_of_transformers(rules, seed):
    logit_BV = logits(seed, len(rules))
    found_BV = probabilities(logit_BV, rules)
    for row, (rule, logit_V) in enumerate(zip(rules, logit_BV, strict=True)):
        scores = TemperatureLogitsWarper(rule.temperature)(None, logit_V[None])
        if rule.top_k:
            scores = TopKLogitsWarper(rule.top_k)(None, scores)
        if rule.top_p < 1:
            scores = TopPLogitsWarper(rule.top_p)(None, scores)
        if rule.min_p:
            scores = MinPLogitsWarper(rule.min_p)(None, scores)
        expected_V = torch.softmax(scores[0], dim=0)
        found_V = found_BV[row] / found_BV[row].sum()
        torch.testing.assert_close(found_V, expected_V, rtol=1e-9, atol=1e-12)


def test_draws_follow_the_odds():
    rule = Sampling(1, temperature=0.7, top_k=4)
    logit_1V = logits(3)
    row = Drawing(Sampling(1, temperature=0.7, top_k=4, seed=5), [])
    expected_V = probabilities(logit_1V, [rule])[0]
    expected_V = expected_V / expected_V.sum()
    count = 4000
    drawn = torch.tensor([draw(logit_1V, [row])[0].token for _ in range(count)])
    found_V = torch.bincount(drawn, minlength=V) / count
    assert found_V[expected_V == 0].sum() == 0
    assert (found_V - expected_V).abs().max() < 4 * math.sqrt(0.25 / count)


@given(seed=st.integers(0, 99), others=st.integers(0, 5))
def test_a_row_draws_the_same_whoever_is_beside_it(seed, others):
    rule = Sampling(1, temperature=1.3, top_p=0.8, seed=seed)
    alone = [draw(logits(i), [row])[0].token for row in [Drawing(rule, [])] for i in range(5)]
    rows = [Drawing(Sampling(1, temperature=0.5 + i, top_k=i), []) for i in range(others)]
    mine = Drawing(rule, [])
    together = []
    for i in range(5):
        logit_BV = torch.cat([logits(100 + i, others), logits(i)])
        together.append(draw(logit_BV, [*rows, mine])[-1].token)
    assert together == alone


def test_several_texts_of_a_seed_differ_and_repeat():
    rule = Sampling(1, temperature=2, seed=7)

    def three() -> list[list[int]]:
        rows = [Drawing(rule, [], index=i) for i in range(3)]
        return [[w.token for w in draw(logits(i).expand(3, -1), rows)] for i in range(8)]

    assert three() == three()
    assert len({tuple(column) for column in zip(*three(), strict=True)}) == 3


def test_without_a_seed_draws_do_not_repeat():
    rule = Sampling(1, temperature=2)

    def some() -> list[int]:
        row = Drawing(rule, [])
        return [draw(logits(0), [row])[0].token for _ in range(30)]

    assert some() != some()


@pytest.mark.parametrize("penalty", [0.5, 1.7])
def test_the_repetition_penalty_is_transformers(penalty):
    logit_1V = logits(4)
    row = Drawing(Sampling(9, repetition_penalty=penalty), [1, 2], written=[2, 5])
    expected_1V = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([[1, 2, 5]]), logit_1V)
    torch.testing.assert_close(row.change(logit_1V[0]), expected_1V[0])


def test_penalties_count_what_was_written_and_biases_add():
    logit_V = logits(5)[0]
    row = Drawing(
        Sampling(9, presence_penalty=0.5, frequency_penalty=0.25, logit_bias={3: 2.0}),
        [0, 0], written=[1, 1, 3],
    )  # fmt: skip
    expected_V = logit_V.clone()
    expected_V[1] -= 0.5 + 2 * 0.25
    expected_V[3] += 2.0 - 0.5 - 0.25
    torch.testing.assert_close(row.change(logit_V), expected_V)


def test_no_end_before_the_least_count():
    row = Drawing(Sampling(9, temperature=0, min_tokens=2), [], frozenset({4}))
    logit_1V = torch.zeros(1, V)
    logit_1V[0, 4] = 9
    for expected in (False, False, True):
        (written,) = draw(logit_1V, [row])
        assert (written.token == 4) == expected
        row.written.append(written.token)


def test_logprobs_are_the_models_own():
    logit_1V = logits(6)
    row = Drawing(Sampling(1, temperature=0, logit_bias={2: 50}, logprobs=3), [])
    (written,) = draw(logit_1V, [row])
    logprob_V = torch.log_softmax(logit_1V[0], dim=0)
    best = logprob_V.topk(3)
    assert written.token == 2
    assert written.logprob == pytest.approx(float(logprob_V[2]))
    assert written.alternatives == tuple(
        zip(best.indices.tolist(), best.values.tolist(), strict=True)
    )


@pytest.mark.parametrize("temperature", [1e-9, 5e-324])
def test_a_tiny_temperature_takes_the_likeliest(temperature):
    logit_1V = logits(7)
    (written,) = draw(logit_1V, [Drawing(Sampling(1, temperature=temperature), [])])
    assert written.token == int(logit_1V.argmax())


def test_only_numbers_are_sound():
    logit_BV = torch.zeros(4, V)
    logit_BV[0, 3] = torch.nan
    logit_BV[1, 3] = torch.inf
    logit_BV[2, :5] = -torch.inf
    assert sound(logit_BV) == [False, False, True, True]
