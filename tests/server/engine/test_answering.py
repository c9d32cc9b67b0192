"""From an adapted state to an answer: choices, label sets, statements, refusals."""

from dataclasses import replace

import pytest
import torch

from experts.errors import MixError
from experts.manifest import Label
from experts.statements import StatementMap
from routers.policy import Decision
from routers.types import Chosen, Selection
from server.engine import answering
from server.engine.answering import answer, judges_statement, offered
from server.engine.judging import Judge, choose
from server.engine.messages import Choice, Question, Sample
from server.engine.work import Work

SHARP = 1e4
YES_NO = (Choice(True), Choice(False))


def by_reference(engine):
    """The library's entries as a batch sees them."""
    return {entry.ref: entry for entry in engine.library.entries.values()}


@pytest.fixture
def ask(rich):
    """Answer a question from a given state: `ask(question, {"mood": 1.0})`."""
    entries, words = by_reference(rich), rich.words
    judge = Judge(
        words, rich.said, replace(StatementMap.identity(rich.backbone.width), scale=SHARP)
    )

    def run(question, weights=None, text="What a lovely day!"):
        experts = tuple(Chosen(id=id, weight=w) for id, w in (weights or {}).items())
        work = Work(Sample(text, question))
        work.decision = Decision(Selection(mode="merge" if experts else "base", experts=experts))
        work.state_D = words.get(text)
        answering.warm([work], entries, words, judge)
        answer(work, entries, words, judge)
        return work.answer

    return run


@pytest.mark.parametrize("temperature", [0.05, 0.07])
def test_a_choice_is_the_softmax_of_cosines_over_the_temperature(rich, temperature):
    state_D, choice_CD = rich.words.get("a state"), rich.words.stack(["a", "b", "c"])
    odds = [float(torch.exp((c @ state_D).double() / temperature)) for c in choice_CD]
    expected = [o / sum(odds) for o in odds]
    assert choose(state_D, choice_CD, temperature).tolist() == pytest.approx(expected, abs=1e-5)


def test_probabilities_sum_to_one_for_many_choices(ask):
    options = tuple(Choice(f"option {i}", "with a description") for i in range(255))
    found = ask(Question("choice", choices=options))
    assert sum(found.probabilities) == pytest.approx(1, abs=1e-12)
    assert found.choices == options


def test_a_description_is_part_of_the_choice(ask):
    plain = ask(Question("choice", choices=(Choice("a"), Choice("b"))))
    told = ask(Question("choice", choices=(Choice("a", "the first letter"), Choice("b"))))
    assert plain.probabilities != told.probabilities


def test_without_choices_the_first_experts_labels_are_offered(ask):
    found = ask(Question("choice"), {"quiz": 0.6, "flight": 0.3, "mood": 0.1})
    assert [c.value for c in found.choices] == ["launch", "soaring", "landing"]
    assert sum(found.probabilities) == pytest.approx(1)


@pytest.mark.parametrize("type", ["choice", "score"])
def test_a_question_whose_best_choices_read_the_same_is_refused(ask, type):
    """The tokeniser knows neither emoji: half and half would be a guess."""
    field = "levels" if type == "score" else "choices"
    alike = (Choice("What a day! 👍"), Choice("quite another"), Choice("What a day! 👎"))
    found = ask(Question(type, choices=alike), text="What a day! 👌")
    assert f"cannot tell {field}[0] and {field}[2] apart" in found.refusal
    assert (found.probabilities, found.best) == ((), None)


def test_choices_that_read_the_same_do_no_harm_where_another_is_best(ask):
    alike = (Choice("👍"), Choice("👎"), Choice("What a lovely day!"))
    found = ask(Question("choice", choices=alike))
    assert found.best == 2
    assert found.probabilities[0] == pytest.approx(found.probabilities[1])


@pytest.mark.parametrize("weights", [{}, {"quiz": 1.0}])
def test_without_choices_and_labels_the_question_is_refused(ask, weights):
    found = ask(Question("choice"), weights)
    assert found.refusal
    assert found.probabilities == ()


@pytest.mark.parametrize("expert", ["weather", "mood", "flight", "sound"])
def test_own_statements_and_their_denials_share_out_the_probability(ask, rich, expert):
    for label in rich.library.entries[expert].manifest.labels:
        (true,) = ask(Question("predicate", label.statements[0]), {expert: 1.0}).probabilities
        (denied,) = ask(Question("predicate", label.negations[0]), {expert: 1.0}).probabilities
        assert 0 <= true <= 1
        assert true + denied == pytest.approx(1, abs=1e-5)


def test_own_statements_say_what_the_choice_says(ask, rich):
    """With one wording a label, p(statement) is p(label); over all labels it sums to 1."""
    question = Question("choice", choices=(Choice("bang"), Choice("hum")))
    by_choice = ask(question, {"sound": 1.0}).probabilities
    labels = rich.library.entries["sound"].manifest.labels
    by_statement = [
        ask(Question("predicate", lb.statements[0]), {"sound": 1.0}).probabilities[0]
        for lb in labels
    ]
    assert by_statement == pytest.approx(by_choice, abs=1e-5)


def test_judges_are_mixed_by_their_weights(ask):
    question = Question("predicate", "It is sad.")
    one, other, mixed = (
        ask(question, w).probabilities[0]
        for w in ({"mood": 1.0}, {"weather": 1.0}, {"mood": 0.6, "weather": 0.2, "quiz": 0.2})
    )
    assert mixed == pytest.approx(0.75 * one + 0.25 * other, abs=1e-9)


def test_boolean_choices_ask_whether_the_statement_holds(ask):
    question = Question("choice", "It is happy.", YES_NO)
    (true,) = ask(Question("predicate", "It is happy."), {"mood": 1.0}).probabilities
    found = ask(question, {"mood": 1.0})
    assert found.probabilities == pytest.approx((true, 1 - true))
    turned = ask(Question("choice", "It is happy.", YES_NO[::-1]), {"mood": 1.0})
    assert turned.probabilities == pytest.approx((1 - true, true))


def test_descriptions_of_boolean_options_are_what_they_mean(ask):
    said, against = "It is happy.", "It is sad."
    p, q = (ask(Question("predicate", s), {"mood": 1.0}).probabilities[0] for s in (said, against))
    yes = (Choice(True, said), Choice(False))
    assert ask(Question("choice", "Judge.", yes), {"mood": 1.0}).probabilities[0] == (
        pytest.approx(p)
    )
    both = (Choice(True, said), Choice(False, against))
    assert ask(Question("choice", "", both), {"mood": 1.0}).probabilities == (
        pytest.approx((p / (p + q), q / (p + q)))
    )


def test_a_state_out_of_the_numbers_is_an_error_and_no_answer(rich):
    work = Work(Sample("x"), state_D=torch.full((rich.backbone.width,), torch.nan))
    judge = Judge(rich.words, rich.said, StatementMap.identity(rich.backbone.width))
    with pytest.raises(MixError, match="overflow"):
        answer(work, {}, rich.words, judge)


@pytest.mark.parametrize(
    "question", [Question("predicate", "It is."), Question("choice", "", YES_NO)]
)
@pytest.mark.parametrize("weights", [{}, {"quiz": 1.0}, {"mood": 0.0}])
def test_who_has_no_label_set_judges_no_statement(ask, question, weights):
    found = ask(question, weights)
    assert found.refusal
    assert found.probabilities == ()


def test_a_predicate_without_a_statement_is_refused(ask):
    assert "statement" in ask(Question("predicate"), {"mood": 1.0}).refusal


def test_which_questions_are_about_a_statement():
    words = (Choice("true"), Choice("false"))
    assert judges_statement(Question("predicate", "x"))
    assert judges_statement(Question("choice", "x", YES_NO))
    assert not judges_statement(Question("choice", "x", words))
    assert not judges_statement(Question("choice", "x", (*YES_NO, Choice("maybe"))))
    assert not judges_statement(Question("score", "x", words))


def test_statements_are_those_of_the_labels_in_force(rich):
    """Labels may be given anew when an expert is added: nothing is to be fitted for that."""
    entries = by_reference(rich)
    mood = entries["mood@1"]
    mute = mood.manifest.model_copy(
        update={"labels": tuple(Label(value=lb.value) for lb in mood.manifest.labels)}
    )
    changed = type(mood)(mood.path, mute)
    work = Work(Sample("x", Question("predicate", "It is happy.")))
    work.decision = Decision(Selection(mode="single", experts=(Chosen(id="mood", weight=1.0),)))
    work.state_D = rich.words.get("x")
    judge = Judge(rich.words, rich.said, StatementMap.identity(rich.backbone.width))
    answer(work, {**entries, "mood@1": changed}, rich.words, judge)
    assert work.answer.refusal
    answer(work, entries, rich.words, judge)
    assert work.answer.refusal is None


def test_an_embedding_is_the_state_and_offers_nothing(ask, rich):
    found = ask(None)
    assert found.embedding == tuple(rich.words.get("What a lovely day!").tolist())
    assert offered(Work(Sample("x")), {}) == ()
