"""The engine end to end: routing, mixed batches, lone failures, a library that changes."""

import pytest
import torch

from experts.errors import (
    BadExpert,
    ExpertError,
    InputTooLong,
    MixError,
    SystemExhausted,
    UnknownExpert,
)
from experts.statements import StatementMap
from routers.calibration import VIEWS, Calibration
from routers.presets import PRESETS
from routers.types import Chosen, Selection
from server.build import build_engine
from server.calibrate import tensors_of
from server.engine.loading import TRIES
from server.engine.messages import Choice, Cut, Outcome, Question, RoutingOptions, Sample
from server.engine.tracing import SHOWN_CANDIDATES
from server.errors import RequestError, UnknownModel
from server.observability.metrics import fallbacks
from server.settings import Settings
from tests.experts.handles import no_handle_left

TEXT = "Grey clouds, and drizzle on the canopy."
WEATHER = Question("choice", "What is the weather like?", (Choice("sunny"), Choice("rainy")))
LONG = "grey " * 60


def sample(text=TEXT, question=WEATHER, model="auto", **options):
    return Sample(text, question, model, RoutingOptions(**options))


def one(engine, *args, **said):
    (result,) = engine.run([sample(*args, **said)])
    return result


def same(result, other):
    assert result.trace.selection.ids == other.trace.selection.ids
    assert result.answer.choices == other.answer.choices
    assert result.answer.probabilities == pytest.approx(other.answer.probabilities, abs=1e-5)


MIXED = [
    sample(),
    sample(question=Question("predicate", "It is happy.")),
    sample("no", router="dam"),
    sample(router="arrow", trace="full"),
    sample(model="sound"),
    sample(model="tiny-random"),
    sample("Turn the radio down.", question=None),
    sample(experts={"mood": 0.5, "flight": 0.7}),
    sample(question=Question("choice", "Say which part of a flight this is about.")),
    sample(LONG, truncate=True),
    sample(question=Question("score", "How wet?", tuple(map(Choice, ("dry", "damp", "wet"))))),
]


@pytest.mark.parametrize("preset", ["default", *PRESETS])
def test_every_preset_answers(rich, preset):
    outcome = one(rich, router=preset)
    assert sum(outcome.answer.probabilities) == pytest.approx(1, abs=1e-9)
    assert outcome.trace.router == ("sailplane" if preset == "default" else preset)
    assert outcome.tokens == len(rich.backbone.tokens([TEXT])[0])
    experts = outcome.trace.selection.experts
    assert bool(experts) == (preset != "base")
    if experts:
        assert sum(e.weight for e in experts) == pytest.approx(1)
        assert outcome.trace.candidates


def test_a_mixed_batch_is_its_samples_one_by_one(rich):
    together = rich.run(MIXED)
    for asked, result in zip(MIXED, together, strict=True):
        (alone,) = rich.run([asked])
        assert isinstance(result, Outcome), result
        if result.answer.embedding:
            assert result.answer.embedding == pytest.approx(alone.answer.embedding, abs=1e-5)
        same(result, alone)


def test_an_empty_batch_is_answered(rich):
    assert rich.run([]) == []


def test_questions_on_one_input_with_one_selection_share_a_row(rich, monkeypatch):
    rows = []
    run = rich.backbone.run

    def counting(tokens, mix=None, lane=None):
        if mix is not None:
            rows.append(len(tokens))
        return run(tokens, mix, lane)

    monkeypatch.setattr(rich.backbone, "run", counting)
    other = Question("choice", "Bright or not?", (Choice("bright"), Choice("dull")))
    rich.run([sample(model="mood"), sample(model="mood", question=other), sample(model="mood")])
    assert rows == [1]
    rich.run([sample(model="mood"), sample(model="weather", question=other)])
    assert sum(rows[1:]) == 2


def test_a_named_expert_answers_alone(rich):
    for id in ("weather", "sound"):
        outcome = one(rich, model=id)
        assert (outcome.trace.selection.mode, outcome.trace.selection.ids) == ("single", (id,))
        assert outcome.trace.router == "explicit"
        same(outcome, one(rich, experts={id: 1.0}))


def test_the_backbones_name_uses_no_expert(rich):
    outcome = one(rich, TEXT, None, model="tiny-random")
    assert outcome.trace.selection.mode == "base"
    expected = rich.backbone.embed([TEXT])[0].tolist()
    assert outcome.answer.embedding == pytest.approx(expected, abs=1e-6)


def test_explicit_weights_mix_and_their_sum_is_the_strength(rich):
    outcome = one(rich, experts={"mood": 1.5, "weather": 0.5})
    selection = outcome.trace.selection
    assert (selection.mode, selection.strength, selection.ids) == ("merge", 2, ("mood", "weather"))
    assert [e.weight for e in selection.experts] == [0.75, 0.25]
    nothing = one(rich, TEXT, None, experts={"mood": 0.0})
    base = one(rich, TEXT, None, model="tiny-random")
    assert nothing.answer.embedding == pytest.approx(base.answer.embedding, abs=1e-5)


@pytest.mark.parametrize("asked", MIXED)
def test_a_selection_that_is_sent_back_gives_the_same_answer(rich, asked):
    (first,) = rich.run([asked])
    sent = Selection.model_validate_json(first.trace.selection.model_dump_json())
    pinned = one(rich, asked.input, asked.question, selection=sent, truncate=asked.options.truncate)
    assert pinned.trace.selection == first.trace.selection
    same(pinned, first)


@pytest.mark.parametrize(
    "broken",
    [
        {"mode": "base"},
        {"experts": ()},
        {"mode": "token"},
        {"mode": "token", "token_router": "psychic"},
        {"token_router": "gate"},
        {"strength": float("inf")},
        {"experts": (Chosen(id="mood", weight=float("inf")),)},
        {"experts": (Chosen(id="mood", weight=1.0, prior=float("nan")),)},
        {"experts": (Chosen(id="mood", weight=0.5), Chosen(id="sound", weight=0.5))},
    ],
)
def test_an_unsound_selection_is_refused_alone(rich, broken):
    sound = Selection(mode="merge", experts=(Chosen(id="mood", weight=1.0),))
    bad, good = rich.run([sample(selection=sound.model_copy(update=broken)), sample()])
    assert isinstance(bad, MixError)
    assert isinstance(good, Outcome)


def test_names_that_are_not_here(rich):
    assert isinstance(one(rich, model="nobody"), UnknownModel)
    assert isinstance(one(rich, experts={"nobody": 1.0}), UnknownExpert)
    assert isinstance(one(rich, router="roulette"), RequestError)
    gone = Selection(mode="single", experts=(Chosen(id="nobody", weight=1.0),))
    assert isinstance(one(rich, selection=gone), UnknownExpert)
    assert isinstance(one(rich, experts={"mood": 0.5, "sound": 0.5}), MixError)


def test_one_failing_sample_fails_alone(rich):
    results = rich.run([sample(), sample(LONG), sample(model="nobody"), sample()])
    assert [type(r) for r in results] == [Outcome, InputTooLong, UnknownModel, Outcome]
    assert results[1].details == {"part": "input", "length": 302, "limit": 128}
    same(results[0], results[3])


def test_a_cut_is_allowed_by_name_and_told(rich):
    outcome = one(rich, LONG, truncate=True)
    assert outcome.trace.truncated == (Cut("input", 302, 128),)
    assert outcome.tokens == 128
    assert one(rich, truncate=True).trace.truncated == ()


@pytest.mark.parametrize(
    ("question", "part"),
    [
        (Question("predicate", LONG), "instructions"),
        (Question("choice", "", (Choice("a"), Choice("b", LONG))), "choices[1]"),
        (Question("score", "", (Choice(LONG), Choice("b"))), "levels[0]"),
    ],
)
def test_words_are_never_cut_in_silence(rich, question, part):
    (refused,) = rich.run([Sample("x", question)])
    assert isinstance(refused, InputTooLong)
    assert refused.details["part"] == part
    (cut,) = rich.run([Sample("x", question, options=RoutingOptions(truncate=True))])
    assert [c.part for c in cut.trace.truncated] == [part]


def test_a_pinned_selection_is_of_the_tensors_that_are_there(rich):
    pinned = one(rich, experts={"mood": 0.5, "weather": 0.5}).trace.selection
    assert isinstance(one(rich, selection=pinned), Outcome)
    mood, weather = pinned.experts
    older = mood.model_copy(update={"version": 99})
    heavy = mood.model_copy(update={"weight": 1.0})
    for experts in ((older, weather), (mood, mood), (heavy, weather)):
        wrong = pinned.model_copy(update={"experts": experts})
        assert isinstance(one(rich, selection=wrong), RequestError | MixError)


def test_boolean_choices_sum_to_one_and_predicates_stand_alone(rich):
    yes_no = Question("choice", "It is happy.", (Choice(True), Choice(False)))
    outcome = one(rich, question=yes_no, model="mood")
    assert sum(outcome.answer.probabilities) == pytest.approx(1)
    (true,) = one(
        rich, question=Question("predicate", "It is happy."), model="mood"
    ).answer.probabilities
    assert outcome.answer.probabilities[0] == pytest.approx(true)


def test_the_bare_backbone_judges_no_statement(rich):
    outcome = one(rich, question=Question("predicate", "It is happy."), model="tiny-random")
    assert outcome.answer.refusal
    assert outcome.answer.probabilities == ()


def test_the_experts_own_labels_are_offered(rich):
    outcome = one(rich, question=Question("choice"), model="flight")
    assert [c.value for c in outcome.answer.choices] == ["launch", "soaring", "landing"]
    assert sum(outcome.answer.probabilities) == pytest.approx(1)


def test_routing_alone_gives_a_trace_and_no_answer(rich):
    asked = Sample(TEXT, WEATHER, predict=False)
    (outcome,) = rich.run([asked])
    assert outcome.answer is None
    assert outcome.trace.selection == one(rich).trace.selection


def test_allow_and_deny_are_kept(rich):
    for id in ("mood", "sound"):
        assert one(rich, router="average", allow=(id,)).trace.selection.ids == (id,)
    denied = one(rich, router="average", deny=("sound", "mood")).trace.selection.ids
    assert set(denied) == {"weather", "flight", "quiz"}
    assert one(rich, allow=()).trace.fallback == "no_expert"


def test_what_could_not_be_mixed_is_named(rich):
    trace = one(rich, router="average", deny=()).trace
    assert set(trace.selection.ids) == {"flight", "mood", "quiz", "weather"}
    assert set(trace.dropped) == {"sound"}


def test_the_callers_instruction_is_used_as_it_stands(rich):
    trace = one(rich).trace
    assert (trace.instruction, trace.writer) == (WEATHER.instructions, "caller")
    options = one(rich, instruction="Tell the mood of the writer.").trace
    assert options.instruction == "Tell the mood of the writer."
    assert options.candidates[0].views["instruction"] <= 1
    mood = next(c for c in options.candidates if c.id == "mood")
    assert mood.views["instruction"] == pytest.approx(1, abs=1e-3)
    silent = one(rich, question=Question("choice", choices=WEATHER.choices)).trace
    assert silent.writer == "template"
    assert "sunny" in silent.instruction
    assert one(rich, model="mood").trace.writer == "none"


def test_a_library_that_changes_between_batches_is_seen(rich, rich_library, write_one, tmp_path):
    rich.library.remove("flight")
    before = one(rich, router="average").trace.selection.ids
    assert set(before) == {"mood", "quiz", "weather"}
    assert isinstance(one(rich, model="flight"), UnknownModel)
    source = write_one(tmp_path / "inbox", "flight")
    rich.library.add(source, sites=rich.backbone.sites, roots=[tmp_path])
    after = one(rich, router="average").trace.selection
    assert {e.id: e.version for e in after.experts} == {
        "flight": 2, "mood": 1, "quiz": 1, "weather": 1,
    }  # fmt: skip
    assert isinstance(one(rich, model="flight"), Outcome)


def test_an_expert_removed_while_a_batch_runs_fails_its_samples_alone(rich, monkeypatch):
    def remove():
        if "flight" in rich.library.entries:
            rich.library.remove("flight")

    one(rich, model="flight")  # in memory: nothing would notice
    after_decisions(rich, monkeypatch, remove)
    gone, here = rich.run([sample(model="flight"), sample(router="retrieval", allow=("mood",))])
    assert isinstance(gone, UnknownExpert)
    assert isinstance(here, Outcome)


def test_a_routed_expert_removed_while_a_batch_runs_gives_way(rich, monkeypatch):
    expected = one(rich, router="average", deny=("flight",)).trace.selection
    one(rich, router="average")  # in memory: nothing would notice
    after_decisions(rich, monkeypatch, lambda: "flight" in rich.library.entries
                    and rich.library.remove("flight"))  # fmt: skip
    found = one(rich, router="average").trace
    assert found.selection == expected
    assert found.replaced == ("flight",)
    assert "removed" in found.dropped["flight"]


def after_decisions(engine, monkeypatch, change):
    """Have the library change in the middle of a batch."""
    decide = engine.routing.decide

    def deciding(built, work, without=()):
        decide(built, work, without)
        change()

    monkeypatch.setattr(engine.routing, "decide", deciding)


MINE = Calibration(version="mine"), StatementMap(torch.eye(64, 32), torch.zeros(32), 30.0)
OTHERS = (
    Calibration(version="other", views=dict.fromkeys(VIEWS, 1.0)),
    StatementMap(-torch.eye(64, 32), torch.ones(32), 3.0),
)


def write_calibration(engine, constants, placing):
    told = constants.model_dump(mode="json")
    engine.library.write_calibration(told, tensors_of(placing, None))


def test_constants_and_their_tensors_are_seen_together(rich, monkeypatch):
    """Others are written after the constants were looked at, and before their tensors are."""
    write_calibration(rich, *MINE)
    read = rich.library.calibration_tensors

    def reading():
        write_calibration(rich, *OTHERS)
        return read()

    monkeypatch.setattr(rich.library, "calibration_tensors", reading)
    built = rich.routing.current()
    assert built.calibration.version == "other"
    assert torch.equal(built.placing.map_FD, OTHERS[1].map_FD)


def test_a_batch_is_routed_by_one_calibration_whatever_comes_in_between(rich, monkeypatch):
    """Constants, statement map and the version that traces tell are of one moment."""
    batch = [sample(), sample("Bright.", Question("predicate", "It is happy."))]
    write_calibration(rich, *MINE)
    expected = rich.run(batch)
    with monkeypatch.context() as patched:
        after_decisions(rich, patched, lambda: write_calibration(rich, *OTHERS))
        during = rich.run(batch)
    for result, before, after in zip(during, expected, rich.run(batch), strict=True):
        assert result.trace.calibration == "mine"
        assert after.trace.calibration == "other"
        assert result.trace.selection == before.trace.selection != after.trace.selection
        assert result.answer.probabilities == before.answer.probabilities
        assert result.answer.probabilities != after.answer.probabilities


def test_an_expert_that_cannot_be_opened_for_now_is_not_taken_for_a_bad_one(rich):
    one(rich, model="sound")
    with no_handle_left(), pytest.raises(SystemExhausted, match="ulimit -n"):
        raise one(rich, model="mood")
    assert not rich.library.bad
    assert one(rich, model="mood").trace.selection.ids == ("mood",)


def damage(library, id, name="adapter_model.safetensors"):
    (library / id / name).write_bytes(b"altered since it was read")


FILES = ["adapter_model.safetensors", "routing.safetensors"]


@pytest.mark.parametrize("name", FILES)
def test_a_forced_expert_that_fails_fails_its_sample_alone(rich, rich_library, name):
    damage(rich_library, "mood", name)
    forced, other = rich.run([sample(model="mood"), sample(model="weather")])
    again = one(rich, model="mood")  # it is known by now
    for error in (forced, again):
        assert isinstance(error, BadExpert)
        assert error.message.startswith("Expert 'mood")
        assert error.message.count("cannot be served: ") == 1
        assert name in error.message
    assert isinstance(other, Outcome)
    assert name in rich.library.bad["mood"]


@pytest.mark.parametrize("name", FILES)
def test_a_routed_expert_that_fails_gives_way(rich, rich_library, name):
    damage(rich_library, "mood", name)
    other, routed = rich.run([sample(model="weather"), sample(router="average")])
    assert isinstance(other, Outcome)
    assert set(routed.trace.selection.ids) == {"flight", "quiz", "weather"}
    assert routed.trace.replaced == ("mood",)
    assert name in routed.trace.dropped["mood"]
    assert "load_failed" in fallbacks(routed.trace)
    assert name in rich.library.bad["mood"]
    after = one(rich, router="average")  # it is known by now, and chosen no more
    assert (after.trace.replaced, after.trace.selection.ids) == ((), routed.trace.selection.ids)
    assert isinstance(one(rich, model="mood"), BadExpert)


def test_the_next_candidate_answers_as_if_the_first_had_been_denied(rich, rich_library):
    best = one(rich, router="retrieval").trace.selection.ids[0]
    expected = one(rich, router="retrieval", deny=(best,))
    rich.tiers.drop(rich.library.get(best).ref)
    damage(rich_library, best)
    replaced = one(rich, router="retrieval")
    assert replaced.trace.replaced == (best,)
    assert replaced.trace.selection == expected.trace.selection
    assert replaced.answer == expected.answer


def test_the_bare_backbone_never_stands_in_for_experts_that_fail(rich, rich_library):
    for id in rich.library.entries:
        damage(rich_library, id)
    error = one(rich, router="average")
    assert isinstance(error, BadExpert)
    assert error.message.count("cannot be served") == 1


def test_a_disk_that_fails_is_not_asked_for_every_expert(rich, rich_library):
    for id in rich.library.entries:
        damage(rich_library, id)
    assert isinstance(one(rich, router="retrieval"), BadExpert)  # one expert at a time
    assert len(rich.library.bad) == TRIES


def test_what_another_embedder_saw_is_embedded_anew(rich, rich_library, write_one):
    before = one(rich, router="sailplane").trace.candidates
    write_one(rich_library, "mood", embedder="another model")
    engine = build_engine(Settings(backbone="tiny-random", library=rich_library, threads=1))
    after = one(engine, router="sailplane").trace.candidates
    assert [c.id for c in after] == [c.id for c in before]
    assert [c.score for c in after] == pytest.approx([c.score for c in before], abs=1e-3)


def test_a_listed_but_bad_expert_is_refused_with_its_reason(rich_library):
    (rich_library / "mood" / "adapter_model.safetensors").write_bytes(b"altered before")
    engine = build_engine(Settings(backbone="tiny-random", library=rich_library, threads=1))
    for error in (one(engine, model="mood"), one(engine, experts={"mood": 1.0})):
        assert isinstance(error, BadExpert)
        assert "adapter_model.safetensors" in str(error)
    assert isinstance(one(engine), Outcome)


def test_the_trace_is_as_long_as_asked_for_and_no_longer(rich):
    none, summary, full = (
        one(rich, "grey " * 20, router="phatgoose", trace=level).trace
        for level in ("none", "summary", "full")
    )
    assert none.candidates == ()
    assert none.tokens == summary.tokens == ()
    assert summary.cache == {}
    assert 0 < len(summary.candidates) <= SHOWN_CANDIDATES
    assert full.cache.keys() == {"device", "host", "disk"}
    reaching = [s for s in rich.backbone.sites.values() if s.reaches_output]
    assert len(full.tokens) == len(reaching)
    assert max(len(t.tokens) for t in full.tokens) == 16
    stages = {"instruction", "embed", "select", "load", "forward"}
    assert stages <= set(full.milliseconds)


def test_nothing_is_learnt_and_nothing_lingers(rich):
    before = {n: t.clone() for n, t in rich.backbone.model.state_dict().items()}
    first = rich.run(MIXED)
    second = rich.run(MIXED)
    assert all(torch.equal(t, before[n]) for n, t in rich.backbone.model.state_dict().items())
    for one_result, other in zip(first, second, strict=True):
        assert one_result.answer == other.answer
    assert not any(isinstance(r, ExpertError) for r in first)
