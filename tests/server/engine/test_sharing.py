"""Samples that take one selection: whatever the batches, all have that of the first."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experts.errors import BadExpert, InputTooLong, SystemExhausted
from routers.presets import PRESETS
from server.engine.messages import Outcome, RoutingOptions, Sample, Shared
from server.engine.sparing import run_sparing

TEXTS = ("Grey clouds, and drizzle.", "I am so glad.", "The winch pulls.", "A loud bang.")


def inputs(texts=TEXTS, shared=None, **options):
    """Texts to embed, as one request has them."""
    first = RoutingOptions(**{"router": "glider", **options})
    quiet = replace(first, trace="none")
    return [
        Sample(text, None, options=quiet if i else first, shared=shared)
        for i, text in enumerate(texts)
    ]


def pinned(engine, texts=TEXTS, **options):
    """The slow twin: the first is routed alone, then all are run with what it got."""
    (first,) = engine.run(inputs(texts[:1], **options))
    return engine.run(inputs(texts, selection=first.trace.selection))


def require_same(results, wanted):
    assert [r.trace.selection for r in results] == [w.trace.selection for w in wanted]
    for result, twin in zip(results, wanted, strict=True):
        assert result.answer.embedding == pytest.approx(twin.answer.embedding, abs=1e-5)


@pytest.mark.parametrize("router", PRESETS)
def test_all_are_run_with_what_the_first_got(rich, router):
    together = rich.run(inputs(shared=Shared(), router=router))
    require_same(together, pinned(rich, router=router))
    first, *others = together
    assert first.trace.router == router
    assert {o.trace.router for o in others} == {"explicit"}
    assert {o.trace.generation for o in together} == {rich.library.snapshot.generation}


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.data())
def test_however_a_request_falls_into_batches(rich, which, data):
    """With samples of others before, between and after, and a second request like it."""
    texts = [TEXTS[i] for i in which]
    cut = data.draw(st.integers(0, len(texts)))
    mine, theirs = inputs(texts, Shared()), inputs(texts[::-1], Shared())
    stranger = inputs(TEXTS[:1])
    first = rich.run([*stranger, *mine[:cut], *theirs])
    second = rich.run([*mine[cut:], *stranger])
    require_same([*first[1 : cut + 1], *second[:-1]], pinned(rich, texts))
    require_same(first[cut + 1 :], pinned(rich, texts[::-1]))


def test_what_fails_for_the_first_fails_for_all(rich):
    results = rich.run(inputs(("grey " * 90, *TEXTS), Shared()))
    assert all(isinstance(r, InputTooLong) for r in results)


def test_nor_is_anything_decided_for_them_in_later_batches(rich):
    asked = inputs(("grey " * 90, *TEXTS), Shared())
    (first,), others = rich.run(asked[:1]), rich.run(asked[1:])
    assert {id(r) for r in others} == {id(first)}


def test_one_that_fails_alone_fails_alone(rich):
    first, long, last = rich.run(inputs((TEXTS[0], "grey " * 90, TEXTS[1]), Shared()))
    assert isinstance(long, InputTooLong)
    assert first.trace.selection == last.trace.selection


def test_an_expert_that_cannot_be_loaded_gives_way_for_all(rich, monkeypatch):
    (plain,) = rich.run(inputs(TEXTS[:1]))
    lost, hold = plain.trace.selection.experts[0].ref, rich.tiers.hold

    def without(refs):
        lease = hold([ref for ref in refs if ref != lost])
        if lost in refs:
            lease.failed[lost] = BadExpert(f"{lost} is damaged")
        return lease

    monkeypatch.setattr(rich.tiers, "hold", without)
    results = rich.run(inputs(shared=Shared()))
    chosen = {r.trace.selection for r in results}
    assert len(chosen) == 1
    assert lost not in chosen.pop().refs
    assert results[0].trace.replaced


def test_a_batch_that_is_run_again_in_halves_has_one_selection_and_its_trace(rich):
    ran = []

    def short_of_memory(samples):
        ran.append(len(samples))
        results = rich.run(samples)
        if len(samples) > 2:
            raise SystemExhausted("no memory")
        return results

    results = run_sparing(short_of_memory, inputs(shared=Shared()))
    assert ran == [4, 2, 2]
    assert all(isinstance(r, Outcome) for r in results)
    require_same(results, pinned(rich))
    assert results[0].trace.router == "glider"
