"""One mixed pass: who shares a row, and that a row is the merged expert of its selection."""

from dataclasses import replace

import pytest
import torch

from experts.kinds import KINDS
from experts.mix import RowMix, build_mix
from experts.stacks import StackCache, stack_experts
from routers.policy import Decision
from routers.types import Chosen, Selection
from server.engine.messages import RoutingOptions, Sample
from server.engine.passes import forward, row_mix
from server.engine.recorder import SHOWN_TOKENS
from server.engine.work import Work

TEXT = "A grey morning over the airfield."


def selection(weights, mode="merge", **said):
    experts = tuple(Chosen(id=i, weight=w, prior=p) for i, (w, p) in weights.items())
    router = "gate" if mode == "token" else None
    return Selection(mode=mode, experts=experts, **{"token_router": router, **said})


BASE = Selection(mode="base")
ONE = selection({"mood": (1.0, 0.0)}, "single")
TWO = selection({"mood": (0.7, 0.0), "weather": (0.3, 0.0)})
STRONG = TWO.model_copy(update={"strength": 1.6})
TOKEN = selection({"mood": (0.7, 0.4), "weather": (0.2, 0.1), "flight": (0.1, 0.0)}, "token")
ARROW = TOKEN.model_copy(update={"token_router": "arrow"})
OTHER_KIND = selection({"sound": (1.0, 0.0)}, "single")
EVERY = (BASE, ONE, TWO, STRONG, TOKEN, ARROW, OTHER_KIND)


@pytest.fixture
def run(rich):
    """Run works through the pass and count the rows: `states, rows = run(works)`."""
    backbone, seen = rich.backbone, []
    whole = backbone.run

    def counting(rows, mix=None, lane=None):
        seen.append(len(rows))
        return whole(rows, mix, lane)

    backbone.run = counting

    def passes(works):
        seen.clear()
        chosen = {e for w in works for e in w.selection.experts}
        with torch.inference_mode(), rich.tiers.pin([f"{e.id}@1" for e in chosen]) as lease:
            # A later version, where a test asks for one, has the same tensors.
            experts = {e.ref: replace(lease.experts[f"{e.id}@1"], id=e.ref) for e in chosen}
            forward(backbone, StackCache(), experts, works)
        return [w.state_D for w in works], sum(seen)

    yield passes
    del backbone.run


@pytest.fixture
def work_of(rich):
    def make(chosen, text=TEXT, **options):
        work = Work(Sample(text, options=RoutingOptions(**options)))
        work.tokens = rich.backbone.tokens([text])[0]
        work.decision = Decision(chosen)
        return work

    return make


def test_a_mixed_pass_gives_each_row_what_it_gets_alone(run, work_of):
    texts = (TEXT, "no", "Turn the radio down, please.")
    works = [work_of(s, t) for s in EVERY for t in texts]
    together, _ = run(works)
    for chosen in EVERY:
        for text in texts:
            (alone,), _ = run([work_of(chosen, text)])
            torch.testing.assert_close(together.pop(0), alone, atol=1e-5, rtol=0)


def test_every_selection_says_something_else(run, work_of):
    states, _ = run([work_of(s) for s in EVERY])
    for i, one_D in enumerate(states):
        for other_D in states[i + 1 :]:
            assert float((one_D - other_D).abs().max()) > 1e-4


def test_a_merged_row_is_the_merged_expert(run, work_of, rich):
    (state_D,), _ = run([work_of(TWO)])
    with torch.inference_mode(), rich.tiers.pin(TWO.refs) as lease:
        loaded = [lease.experts[ref] for ref in TWO.refs]
        merged = KINDS["lora"].merge(loaded, [0.7, 0.3])
        mix = build_mix([RowMix.of({merged.id: 1.0})], [stack_experts([merged])])
        expected = rich.backbone.run([rich.backbone.tokens([TEXT])[0]], mix)[0]
    torch.testing.assert_close(state_D, expected, atol=1e-5, rtol=0)


def test_equal_inputs_with_equal_selections_share_a_row(run, work_of):
    pinned = TWO.model_copy(update={"reason": "said in other words"})
    states, rows = run([work_of(TWO), work_of(pinned), work_of(TWO), work_of(ONE), work_of(ONE)])
    assert rows == 2
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[3], states[4])


@pytest.mark.parametrize(
    "other",
    [
        {"strength": 1.5},
        {"top_k": 1},
        {"token_router": "constant"},
        {"experts": tuple(e.model_copy(update={"prior": 0.9}) for e in TOKEN.experts)},
        {"experts": tuple(e.model_copy(update={"version": 2}) for e in TOKEN.experts)},
        {"experts": TOKEN.experts[:2]},
    ],
)
def test_whatever_changes_the_answer_keeps_rows_apart(run, work_of, other):
    _, rows = run([work_of(TOKEN), work_of(TOKEN.model_copy(update=other))])
    assert rows == 2


def test_no_work_runs_nothing(run):
    assert run([]) == ([], 0)


def test_a_row_mix_says_what_the_selection_says():
    mix = row_mix(TOKEN)
    assert [(p.expert, p.weight, p.prior) for p in mix.parts] == [
        ("mood@1", 0.7, 0.4),
        ("weather@1", 0.2, 0.1),
        ("flight@1", 0.1, 0.0),
    ]
    assert (mix.per_token, mix.top_k, mix.strength) == (True, 2, 1.0)
    assert not row_mix(STRONG).per_token
    assert row_mix(BASE).parts == ()


def test_the_full_trace_shows_what_tokens_chose_within_bounds(run, work_of, rich):
    long = work_of(TOKEN, "grey " * 20, trace="full")
    short = work_of(TOKEN, "hi", trace="full")
    merged, brief = work_of(TWO, trace="full"), work_of(TOKEN)
    run([long, short, merged, brief])
    assert merged.token_traces == brief.token_traces == ()
    sites = [s.name for s in rich.backbone.sites.values() if s.reaches_output]
    for work, shown in ((long, SHOWN_TOKENS), (short, len(short.tokens))):
        assert sorted(t.site for t in work.token_traces) == sorted(sites)
        for site in work.token_traces:
            assert set(site.experts) <= set(TOKEN.ids)
            assert sum(site.experts.values()) == pytest.approx(1, abs=1e-3)
            assert list(site.experts.values()) == sorted(site.experts.values(), reverse=True)
            assert [n for n, _, _ in site.tokens] == list(range(shown))
            assert all(0.5 <= weight <= 1 for *_, weight in site.tokens)  # the better of two


def test_the_full_trace_answers_as_the_brief_one(run, work_of):
    states, _ = run([work_of(TOKEN, trace="full"), work_of(TOKEN)])
    assert torch.equal(states[0], states[1])


def test_the_trace_of_all_tokens_has_the_weights_of_each(run, work_of, rich):
    work = work_of(TOKEN, "grey " * 20, trace="tokens")
    brief = work_of(TOKEN, "grey " * 20, trace="full")
    states, _ = run([work, brief])
    assert torch.equal(states[0], states[1])
    for whole, short in zip(work.token_traces, brief.token_traces, strict=True):
        assert replace(whole, weights={}, first=0) == short
        assert short.weights == {}
        assert whole.first == 0
        weight_NE = torch.tensor(list(whole.weights.values())).T
        assert weight_NE.shape == (len(work.tokens), len(whole.experts))
        torch.testing.assert_close(
            weight_NE.sum(dim=1), torch.ones(len(work.tokens)), atol=1e-3, rtol=0
        )
        means = dict(zip(whole.weights, weight_NE.mean(dim=0).tolist(), strict=True))
        assert means == pytest.approx(whole.experts, abs=1e-4)
        for n, id, weight in whole.tokens:
            assert whole.weights[id][n] == weight == max(w[n] for w in whole.weights.values())
