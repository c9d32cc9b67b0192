"""Batches, one step after another, a training taken up again, and exact match."""

from itertools import islice

import pytest
import torch

from benchmarks.generation import drills
from benchmarks.generation.checkpoints import (
    FAMILIES,
    encode_batch,
    make_model,
    make_tokenizer,
    prompt,
)
from benchmarks.generation.learning import HASTE, POOL, Course, Learner, batches, exact_match
from benchmarks.generation.tasks import TASKS

COURSE = Course(steps=60, batch=32, rate=1e-2, warmup=10, precision="float32")


def test_batches_hold_what_the_stream_gives_and_little_padding():
    made = list(islice(batches(drills.stream, 8), POOL))
    drawn = list(islice(drills.stream("0"), 8 * POOL))
    assert sorted(example for batch in made for example in batch) == sorted(drawn)
    spread = [max(s) - min(s) for s in ([len(t) + len(a) for t, a in b] for b in made)]
    assert sum(spread) / POOL < 10


def test_a_batch_depends_on_its_number_alone():
    through = list(islice(batches(drills.stream, 4), 3 * POOL))
    for start in (1, POOL - 1, POOL, POOL + 3):
        later = list(islice(batches(drills.stream, 4, start), 3 * POOL - start))
        assert later == through[start:]


def trained(family, tiny):
    task, tokenizer = TASKS["count-vowels"], make_tokenizer(family)
    learner = Learner(make_model(family, tiny), COURSE)
    losses = [
        learner.step(encode_batch(family, tokenizer, batch))
        for batch in islice(batches(task.stream, COURSE.batch), COURSE.steps)
    ]
    return learner.model.eval(), tokenizer, losses


@pytest.mark.parametrize("family", FAMILIES)
def test_exact_match_is_that_of_greedy_decoding(family, tiny):
    model, tokenizer, losses = trained(family, tiny)
    assert losses[-1] < losses[0] / 2
    examples = TASKS["count-vowels"].tests(40)
    asked = tokenizer(
        [prompt(family, text) for text, _ in examples], return_tensors="pt", padding=True
    )
    written = model.generate(**asked, max_new_tokens=8)
    if family == "causal":
        written = written[:, asked["input_ids"].shape[1] :]
    answers = tokenizer.batch_decode(written, skip_special_tokens=True)
    right = sum(a == wanted for a, (_, wanted) in zip(answers, examples, strict=True))
    assert exact_match(model, family, tokenizer, examples) == right / 40
    assert 0 < right < 40  # or the equality above would say little


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("matrices", ["muon", "adamw"])
def test_a_training_taken_up_is_the_training_uninterrupted(matrices, family, tiny):
    course = Course(steps=6, batch=4, rate=1e-2, warmup=2, matrices=matrices, precision="float32")
    tokenizer = make_tokenizer(family)
    made = [
        encode_batch(family, tokenizer, b) for b in islice(batches(drills.stream, 4), course.steps)
    ]
    through = Learner(make_model(family, tiny), course)
    for batch in made:
        through.step(batch)
    first = Learner(make_model(family, tiny), course)
    for batch in made[:3]:
        first.step(batch)
    second = Learner(make_model(family, tiny, seed=1), course)
    second.take_up(first.state())
    assert second.done == 3
    for batch in made[3:]:
        second.step(batch)
    for one, other in zip(through.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_only_what_requires_gradients_is_trained(tiny):
    model = make_model("causal", tiny)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("q_proj" in name)
    before = {name: p.clone() for name, p in model.named_parameters()}
    course = Course(steps=3, batch=4, rate=1e-2, warmup=1, precision="float32")
    batch = encode_batch("causal", make_tokenizer("causal"), [("bako", "okab")])
    learner = Learner(model, course)
    learner.step(batch)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != ("q_proj" in name), name


def test_position_biases_are_learnt_faster_than_the_rest(tiny):
    model = make_model("seq2seq", tiny)
    before = {name: p.clone() for name, p in model.named_parameters()}
    course = Course(steps=3, batch=4, rate=1e-3, warmup=1, precision="float32")
    Learner(model, course).step(encode_batch("seq2seq", make_tokenizer("seq2seq"), [("a", "b")]))
    moved = {n: (p - before[n]).abs().max().item() for n, p in model.named_parameters()}
    biases = [change for name, change in moved.items() if "relative_attention_bias" in name]
    assert biases == pytest.approx([HASTE * course.rate] * 2, rel=1e-3)  # AdamW's first step
    assert moved["shared.weight"] == pytest.approx(course.rate, rel=1e-3)
