"""Calibration: what is taken out for a moment, which views it trusts, and how far."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from experts.artefacts import Artefacts
from experts.backbones.tiny import tiny_encoder
from experts.manifest import Label, TaskCard, Wording
from experts.training.data import Example
from routers.calibration import USUAL, VIEWS
from routers.catalogue import Catalogue, Routed
from routers.fitting import confidence
from routers.fitting.calibrate import (
    FOLDS,
    PARTS,
    ROUNDS,
    Asked,
    _query,
    _without,
    ask,
    calibrate_views,
)
from routers.fitting.inputs import mean_and_spread
from routers.fitting.variation import Variation
from routers.index import UNSCORED
from routers.metric import FARTHEST
from routers.types import Features

TASKS = {"sky": ("sunny", "rainy"), "tone": ("loud", "quiet"), "taste": ("sweet", "sour", "salty")}


def card_of(id):
    """The card of a task of `TASKS`, or of another like it: "sky-2"."""
    labels = tuple(
        Label(
            value=value,
            wordings=tuple(Wording(value=f"{value} {word}") for word in ("it is", "indeed", "yes")),
            unseen=Wording(value=f"hidden {value}"),
        )
        for value in TASKS[id.split("-")[0]]
    )
    said = tuple(f"{verb} what the {id} is like." for verb in ("Say", "Tell", "Judge", "Give"))
    return TaskCard(id=id, title=id, instructions=said, labels=labels)


@pytest.fixture(scope="module")
def backbone():
    return tiny_encoder()


@pytest.fixture(scope="module")
def routed(backbone):
    """A fitted expert, without weights."""

    def make(id):
        card = card_of(id)
        feature_BF = backbone.features([f"Example {i} of {id}." for i in range(3)])
        artefacts = Artefacts(
            backbone.fingerprint,
            instructions=backbone.embed(card.instructions),
            choices=backbone.embed([w.text for label in card.labels for w in label.known]),
            centroids=backbone.halfway(feature_BF),
        )
        return Routed(id, artefacts, forms=tuple(len(label.known) for label in card.labels))

    return make


@pytest.mark.parametrize("fold", range(FOLDS))
def test_what_a_query_is_asked_with_is_taken_out_and_nothing_else(routed, backbone, fold):
    card, whole = card_of("taste"), routed("taste")
    query = _query(Example("x", TASKS["taste"], 0), card, fold, "foreign")
    less = _without(whole, fold)
    assert less.forms == (3, 3, 3)

    said = [i for i in card.instructions if i != query.instruction]
    torch.testing.assert_close(less.artefacts.instructions, backbone.embed(said))
    known = [w.text for label in card.labels for w in label.known]
    left = [text for text in known if text not in query.choices]
    assert len(left) == len(known) - 3
    torch.testing.assert_close(less.artefacts.choices, backbone.embed(left))
    cosine_CF = backbone.embed(query.choices[:3]) @ less.artefacts.choices.T
    assert cosine_CF.max() < 1 - 1e-4, "an exact match is left"
    assert torch.equal(less.artefacts.centroids, whole.artefacts.centroids)


def test_each_fold_takes_other_words(routed):
    queries = [_query(Example("x", TASKS["sky"], 0), card_of("sky"), f, "") for f in range(FOLDS)]
    assert len({q.instruction for q in queries}) == FOLDS
    assert len({q.choices for q in queries}) == FOLDS
    assert not any("hidden" in c for q in queries for c in q.choices)


def test_a_label_said_in_one_way_keeps_it(routed):
    whole = routed("sky")
    artefacts = Artefacts("e", choices=whole.artefacts.choices[:5])
    less = _without(Routed("sky", artefacts, forms=(4, 1)), 1)
    assert less.forms == (3, 1)
    assert torch.equal(less.artefacts.choices, artefacts.choices[[0, 2, 3, 4]])


def test_prototypes_and_a_lone_instruction_stay(routed):
    artefacts = Artefacts("e", torch.eye(4)[:1], torch.eye(4))
    less = _without(Routed("e", artefacts, forms=()), 2)
    assert torch.equal(less.artefacts.instructions, artefacts.instructions)
    assert torch.equal(less.artefacts.choices, artefacts.choices)


def synthetic(informative, experts=5, queries=200):
    """Scores that tell the owner in some views and are noise in the others."""
    generator = torch.Generator().manual_seed(0)
    owner_Q = torch.randint(experts, (queries,), generator=generator)
    own_QE = torch.nn.functional.one_hot(owner_Q, experts).float()
    unit = {"density": USUAL["input"] / USUAL["density"]}  # nats are smaller than cosines
    views = {
        v: unit.get(v, 1.0) * (
            0.4 + 0.1 * torch.randn(queries, experts, generator=generator)
            + (0.3 * own_QE if v in informative else 0.0)
        )
        for v in VIEWS
    }  # fmt: skip
    return Asked(views, owner_Q, torch.ones(experts, dtype=torch.bool))


@pytest.mark.parametrize("told", VIEWS)
def test_the_view_that_tells_gets_the_weight(told):
    weights = calibrate_views(synthetic({told}))
    assert weights.keys() == set(VIEWS)
    grown = {v: w / USUAL[v] for v, w in weights.items()}
    assert all(grown[told] > 3 * grown[v] for v in VIEWS if v != told)
    assert all(w >= 0 for w in weights.values())


def test_easy_queries_leave_the_weights_bounded():
    owner_Q = torch.arange(4).repeat(10)
    sure_QE = torch.nn.functional.one_hot(owner_Q, 4).float()
    known_E = torch.ones(4, dtype=torch.bool)
    weights = calibrate_views(Asked(dict.fromkeys(VIEWS, sure_QE), owner_Q, known_E))
    assert all(0 < w < 200 for w in weights.values())


@pytest.mark.parametrize("view", VIEWS)
def test_what_an_expert_lacks_is_no_evidence(view):
    """A router fills it with the mean of the others: what is fitted is what is served."""
    asked = synthetic({view}, experts=12)
    unknown = {"density": FARTHEST}.get(view, UNSCORED)
    lacks_QE = asked.views[view].clone()
    lacks_QE[:, 3] = unknown
    less = replace(asked, views={**asked.views, view: lacks_QE})
    weights, whole = calibrate_views(less), calibrate_views(asked)
    assert weights[view] > whole[view] / 2
    nobody = replace(asked, views={**asked.views, view: torch.full_like(lacks_QE, unknown)})
    assert calibrate_views(nobody)[view] == pytest.approx(USUAL[view], rel=1e-2)


def test_asking_scores_every_set_aside_example_of_every_expert(routed, backbone):
    catalogue = Catalogue([routed(id) for id in TASKS])
    cards = {id: card_of(id) for id in TASKS}
    aside = {
        id: [Example(f"{id} {i}", labels, 0) for i in range(n)]
        for (id, labels), n in zip(TASKS.items(), (6, 3, 1), strict=True)
    }
    asked = ask(backbone, backbone, catalogue, cards, aside)
    assert asked.views.keys() == set(VIEWS) - {"density"}, "there is no metric"
    assert asked.away_QE is None
    assert all(t.shape == (10, 3) for t in asked.views.values())
    owners = [catalogue.ids[i] for i in asked.owner_Q.tolist()]
    assert sorted(owners) == ["sky"] * 6 + ["taste"] + ["tone"] * 3
    assert asked.views["instruction"].max() < 1 - 1e-4, "no query meets its own sentence"


@pytest.fixture
def library_of(routed, backbone):
    """Experts with inputs, a catalogue by a metric of all tasks but some, and set-aside examples:
    `library_of(names)`."""

    def make(ids):
        texts = {id: [f"Example {i} of {id}." for i in range(12)] for id in ids}
        features = {id: backbone.features(t) for id, t in texts.items()}
        variation = Variation.of(features)

        def without(*gone):
            metric = variation.metric(without=gone)
            experts = [
                replace(routed(id), gaussian=metric.gaussian(mean_and_spread(f, metric), len(f)))
                for id, f in features.items()
            ]
            return Catalogue(experts, metric=metric)

        return without, {id: [Example(t[0], ("a", "b"), 0)] for id, t in texts.items()}

    return make


close = partial(torch.testing.assert_close, rtol=1e-3, atol=1e-2)


def test_with_a_metric_inputs_are_compared_as_if_their_own_expert_had_never_joined(
    library_of, backbone
):
    catalogue, aside = library_of(TASKS)
    whole = catalogue()
    cards = {id: card_of(id) for id in TASKS}
    asked = ask(backbone, backbone, whole, cards, aside, catalogue)
    assert asked.views.keys() == set(VIEWS)
    for row, owner in enumerate(asked.owner_Q.tolist()):
        id = whole.ids[owner]
        query = Features(input_F=backbone.features([aside[id][0].input])[0])
        close(asked.views["density"][row], whole.densities(query))
        close(asked.away_QE[row], catalogue(id).densities(query))


def test_parts_of_a_library_are_compared_as_if_they_had_joined_later(library_of, backbone):
    ids = [f"{id}-{i}" for id in TASKS for i in range(3)]
    catalogue, aside = library_of(ids)
    cards = {id: card_of(id) for id in ids}
    asked = ask(backbone, backbone, catalogue(), cards, aside, None, lambda gone: catalogue(*gone))
    assert len(asked.joined) == ROUNDS * PARTS
    for start in range(0, len(asked.joined), PARTS):
        together = [q for joined in asked.joined[start : start + PARTS] for q in joined.queries]
        assert sorted(together) == list(range(len(ids))), "each query once a round"
    for joined in asked.joined:
        gone = [id for id, late in zip(sorted(ids), joined.late_E.tolist(), strict=True) if late]
        assert len(gone) == len(ids) / PARTS
        whole = catalogue(*gone)
        for query, density_E in zip(joined.queries, joined.density_QE, strict=True):
            owner = whole.ids[int(asked.owner_Q[query])]
            assert owner in gone
            input_F = backbone.features([aside[owner][0].input])[0]
            close(density_E, whole.densities(Features(input_F=input_F)))


def test_an_expert_of_no_task_counts_as_later_always(library_of, backbone):
    ids = [f"{id}-{i}" for id in TASKS for i in range(3)]
    catalogue, aside = library_of(ids)
    cards, stranger = {id: card_of(id) for id in ids}, ids[0]
    own = {id: examples for id, examples in aside.items() if id != stranger}
    asked = ask(backbone, backbone, catalogue(), cards, own, None, lambda gone: catalogue(*gone))
    at = catalogue().position(stranger)
    assert [i for i, known in enumerate(asked.known_E.tolist()) if not known] == [at]
    assert asked.joined
    assert all(joined.late_E[at] for joined in asked.joined)


def test_a_query_without_an_instruction_has_none_to_compare(library_of, backbone):
    catalogue, aside = library_of(TASKS)
    cards = {id: card_of(id) for id in TASKS}
    silent = next(iter(TASKS))
    cards[silent] = cards[silent].model_copy(update={"instructions": ()})
    asked = ask(backbone, backbone, catalogue(), cards, aside)
    own = catalogue().position(silent)
    has_Q = (asked.views["instruction"] > UNSCORED).all(dim=1)
    assert torch.equal(has_Q, asked.owner_Q != own)


def test_a_library_of_few_has_no_parts(library_of, backbone):
    catalogue, aside = library_of(TASKS)
    cards = {id: card_of(id) for id in TASKS}
    asked = ask(backbone, backbone, catalogue(), cards, aside, catalogue, lambda gone: 1 / 0)
    assert not asked.joined


def test_weights_belong_to_views_and_not_to_experts():
    """So an expert that joins later finds the same constants, and a place in the same sum."""
    asked = synthetic({"input", "choices"})
    weights = calibrate_views(asked)
    assert set(weights) == set(VIEWS)
    mirrored = {v: t.flip(1) for v, t in asked.views.items()}
    flipped = replace(asked, views=mirrored, owner_Q=4 - asked.owner_Q)
    again = calibrate_views(flipped)
    for view in VIEWS:
        assert again[view] == pytest.approx(weights[view], rel=1e-2)


def test_a_text_to_write_comes_without_choices_and_teaches_nothing_of_them(routed, backbone):
    """No caller would know it; so what was fitted of choices is of the tasks that have some."""
    ids = ("sky", "taste")
    catalogue = Catalogue([routed(id) for id in ids])
    cards = {id: card_of(id) for id in ids}
    text, question = Example("It pours.", ("rain",), 0), Example("Sweet.", TASKS["taste"], 0)
    asked = ask(backbone, backbone, catalogue, cards, {"sky": [text] * 8, "taste": [question] * 8})
    written_Q = asked.owner_Q == catalogue.position("sky")
    assert written_Q.sum() == 8
    for view in ("choices", "labels"):
        assert (asked.views[view][written_Q] == UNSCORED).all()
        assert (asked.views[view][~written_Q] > UNSCORED).all()
    assert (asked.views["instruction"] > UNSCORED).all()

    with_choices = confidence._queries(asked, frozenset({"choices", "labels", "input"}))
    assert with_choices == torch.nonzero(~written_Q).flatten().tolist()
    assert len(confidence._queries(asked, frozenset({"instruction", "input"}))) == 16
