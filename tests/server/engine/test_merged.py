"""An expert merged offline, asked for by name, against the same mix made for the request."""

import pytest
import torch

from experts.loader import load_expert
from experts.merging import apply, make_plan, validate
from experts.merging.adding import add_merged
from server.engine.messages import Choice, Question, RoutingOptions, Sample

TEXT = "Grey clouds, and drizzle on the canopy."
QUESTION = Question("choice", "What is the weather like?", (Choice("sunny"), Choice("rainy")))
IDS = ("weather", "mood", "flight")
SHARES = (0.5, 0.3, 0.2)


def put(engine, rule, weights=None):
    library, sites = engine.library, engine.backbone.sites
    entries = [library.get(id) for id in IDS]
    plan = make_plan(rule, IDS, weights=weights)
    experts = [load_expert(e, sites, dtype=torch.float32) for e in entries]
    validate(plan, experts)
    return add_merged(library, plan, apply(plan, experts, "merged"), entries, sites)


def answers(engine, **asked):
    """The embedding of a text and the answer to a question, with one selection."""
    samples = [Sample(TEXT, question, **asked) for question in (None, QUESTION)]
    embedded, told = (outcome.answer for outcome in engine.run(samples))
    return embedded.embedding, told.probabilities


def test_an_average_by_name_is_the_weighted_mix(rich):
    put(rich, "average", SHARES)
    state, told = answers(rich, model="merged")
    mixed = RoutingOptions(experts=dict(zip(IDS, SHARES, strict=True)))
    expected_state, expected = answers(rich, options=mixed)
    assert state == pytest.approx(expected_state, abs=1e-5)
    assert told == pytest.approx(expected, abs=1e-5)
    bare_state, _ = answers(rich, model="tiny-random")
    assert state != pytest.approx(bare_state, abs=1e-3)


def test_dense_deltas_of_ties_answer_and_no_router_chooses_them(rich):
    put(rich, "ties")
    (outcome,) = rich.run([Sample(TEXT, QUESTION, "merged")])
    assert outcome.trace.selection.refs == ("merged@1",)
    assert sum(outcome.answer.probabilities) == pytest.approx(1)
    (routed,) = rich.run([Sample(TEXT, QUESTION, options=RoutingOptions(trace="full"))])
    assert "merged" not in {c.id for c in routed.trace.candidates}
