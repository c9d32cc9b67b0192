"""Training on the tiny backbone: what learns, what must not move, and what is served."""

from dataclasses import replace

import pytest
import torch

from experts.backbones.base import fingerprint
from experts.errors import MismatchedExpert
from experts.kinds import KINDS
from experts.library import Library
from experts.loader import load_expert
from experts.manifest import BackboneRef, Label, Manifest, TaskCard
from experts.mix import RowMix, build_mix
from experts.stacks import stack_experts
from experts.training.course import Corpus
from experts.training.data import Example
from experts.training.ewc import Anchor, fisher_of
from experts.training.objective import ChoiceObjective
from experts.training.past import AFRESH, Past
from experts.training.recipe import Recipe
from experts.training.schedule import batches
from experts.training.train import train_expert
from experts.weights import ExpertWeights
from experts.writing import write_expert

RECIPE = Recipe(rank=4, batch_size=8, epochs=1, min_steps=45, learning_rate=1e-2, noise=0.1)


def states(backbone, expert, texts):
    rows = backbone.tokenize(texts)
    mix = build_mix([RowMix.of({expert.id: 1.0})] * len(rows), [stack_experts([expert])])
    with torch.inference_mode():
        return backbone.run(rows, mix)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_falls_and_the_backbone_stays_as_it_was(backbone, card, examples, kind):
    before, losses = backbone.fingerprint, []
    recipe = RECIPE.model_copy(update={"kind": kind})
    expert = train_expert(
        card.id, backbone, [Corpus(examples, card, ("sunny",))], recipe,
        lambda *told: losses.append(told),
    )  # fmt: skip
    assert [(done, total) for done, total, _ in losses] == [(i, 45) for i in range(1, 46)]
    loss = [value for *_, value in losses]
    assert sum(loss[-10:]) < 0.75 * sum(loss[:10])
    assert fingerprint(backbone.model) == before
    assert not any(p.grad is not None for p in backbone.model.parameters())
    assert not any(t.requires_grad for parts in expert.sites.values() for t in parts.values())

    choice_CD = backbone.embed(["loud", "quiet"])
    state_BD = states(backbone, expert, ["SHOUT again!!!", "hush again..."])
    assert (state_BD @ choice_CD.T).argmax(dim=1).tolist() == [0, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_expert_is_served_as_it_was_trained(backbone, card, examples, kind, tmp_path):
    recipe = RECIPE.model_copy(update={"kind": kind, "min_steps": 10})
    expert = train_expert(card.id, backbone, [Corpus(examples, card)], recipe)
    manifest = Manifest(
        **card.model_dump(), kind=kind,
        backbone=BackboneRef(id=backbone.id, fingerprint=backbone.fingerprint),
    )  # fmt: skip
    write_expert(tmp_path, manifest, expert, dtype=torch.float32)
    library = Library.open(tmp_path, fingerprint=backbone.fingerprint)
    assert not library.bad
    loaded = load_expert(
        library.get(card.id), backbone.sites, dtype=backbone.dtype, device=backbone.device
    )
    texts = [e.input for e in examples]
    torch.testing.assert_close(
        states(backbone, loaded, texts), states(backbone, expert, texts), rtol=0, atol=1e-6
    )
    bare = backbone.embed(texts)
    assert (states(backbone, loaded, texts) - bare).abs().max() > 1e-3, "it learnt something"


def test_training_twice_gives_the_same_expert(backbone, card, examples):
    recipe = RECIPE.model_copy(update={"min_steps": 5})
    first, second = (
        train_expert(card.id, backbone, [Corpus(examples, card)], recipe) for _ in range(2)
    )
    assert_same(first.sites, second.sites)


def assert_same(first, second):
    """The same numbers, bit for bit."""
    assert first.keys() == second.keys()
    for site, parts in first.items():
        assert all(torch.equal(t, second[site][part]) for part, t in parts.items())


@pytest.mark.parametrize("kind", KINDS)
def test_one_task_is_trained_as_by_a_plain_loop(backbone, card, examples, kind):
    """Several corpora are possible, and one of them is no different for it: bit for bit."""
    recipe = RECIPE.model_copy(update={"kind": kind, "min_steps": 7, "seed": 3, "batch_size": 5})
    expert = train_expert(card.id, backbone, [Corpus(examples, card, ("sunny",))], recipe)
    assert_same(expert.sites, plainly(backbone, examples, card, ("sunny",), recipe))


def plainly(backbone, examples, card, foreign, recipe):
    """One task's training without corpora, courses and schedules."""
    kind = KINDS[recipe.kind]
    generator = torch.Generator().manual_seed(recipe.seed)
    targets = kind.target_sites(backbone.sites.values())
    sites = kind.initial(targets, rank=recipe.rank, generator=generator)
    leaves = [t.requires_grad_() for parts in sites.values() for t in parts.values()]
    expert = ExpertWeights(card.id, kind.name, kind.group(sites), sites)
    objective = ChoiceObjective(examples, card, foreign, backbone.embed, recipe)
    tokens = backbone.tokenize([e.input for e in examples])
    steps = batches([len(row) for row in tokens], recipe)
    optimiser = torch.optim.AdamW(leaves, lr=1.0, weight_decay=0.0)
    for done, rows in enumerate(steps):
        warm = min(1.0, (done + 1) / (recipe.warmup * len(steps)))
        optimiser.param_groups[0]["lr"] = recipe.learning_rate * (
            warm * max(0.02, 1 - done / len(steps))
        )
        mix = build_mix([RowMix.of({card.id: 1.0})] * len(rows), [stack_experts([expert])])
        state_BD = backbone.run([tokens[i] for i in rows], mix)
        optimiser.zero_grad()
        objective.loss(state_BD, [examples[i] for i in rows]).backward()
        torch.nn.utils.clip_grad_norm_(leaves, 1.0)
        optimiser.step()
    return {site: {part: t.detach() for part, t in parts.items()} for site, parts in sites.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_one_expert_learns_two_tasks_in_the_steps_that_each_takes(backbone, card, examples, kind):
    other = TaskCard(id="sky", title="Sky", labels=(Label(value="sunny"), Label(value="rainy")))
    weather = [
        Example(text, ("sunny", "rainy", "snowy"), answer)
        for i in range(5)
        for text, answer in ((f"the sun {i}", 0), (f"drops, drops {i}", 1))
    ]
    told = []
    expert = train_expert(
        "both", backbone,
        [Corpus(examples, card, ("sunny",)), Corpus(weather, other, ("loud", "quiet"))],
        RECIPE.model_copy(update={"kind": kind, "min_steps": 99}),
        lambda *step: told.append(step),
    )  # fmt: skip
    assert expert.id == "both"
    assert told[-1][:2] == (len(told), 99 + 100), "24 examples are 3 batches, 10 are 2"
    texts = {"tone": ["SHOUT 1!!!", "hush 1..."], "sky": ["the sun 1", "drops, drops 1"]}
    words = {"tone": ["loud", "quiet"], "sky": ["sunny", "rainy"]}
    for task, asked in texts.items():
        choice_CD = backbone.embed(words[task])
        learnt, bare = (
            margin(state_BD @ choice_CD.T)
            for state_BD in (states(backbone, expert, asked), backbone.embed(asked))
        )
        assert learnt > bare + 0.02, task


def margin(cosine_22):
    """How much nearer two texts are to their own choice than to the other's, on average."""
    return float(cosine_22.diag().mean() - cosine_22.flip(1).diag().mean())


@pytest.mark.parametrize("kind", KINDS)
def test_an_expert_starts_where_another_ended_and_leaves_that_one_as_it_is(
    backbone, card, examples, kind
):
    recipe = RECIPE.model_copy(update={"kind": kind, "min_steps": 3})
    first = train_expert("first", backbone, [Corpus(examples, card)], recipe)
    before = {site: {p: t.clone() for p, t in parts.items()} for site, parts in first.sites.items()}
    still = recipe.model_copy(update={"learning_rate": 1e-12})
    second = train_expert(
        "second", backbone, [Corpus(examples, card)], still, past=Past(start=first)
    )
    assert (second.id, second.group) == ("second", first.group)
    for site, parts in first.sites.items():
        for part, tensor in parts.items():
            torch.testing.assert_close(second.sites[site][part], tensor, rtol=0, atol=1e-8)
    assert_same(first.sites, before)


@pytest.mark.parametrize("other", [{"kind": "bottleneck"}, {"rank": 2}])
def test_an_expert_of_another_form_is_no_start(backbone, card, examples, other):
    recipe = RECIPE.model_copy(update={"min_steps": 1})
    first = train_expert("first", backbone, [Corpus(examples, card)], recipe)
    with pytest.raises(MismatchedExpert, match="cannot start from 'first'"):
        train_expert(
            "x", backbone, [Corpus(examples, card)], recipe.model_copy(update=other),
            past=Past(start=first),
        )  # fmt: skip


def test_what_is_replayed_and_what_is_anchored_is_kept_better(backbone, card, examples):
    """A second task that says the opposite moves an expert less where it keeps the first."""
    corpus = Corpus(examples, card)
    turned = Corpus([replace(e, answer=1 - e.answer) for e in examples], card)
    recipe = RECIPE.model_copy(update={"min_steps": 30, "statement_share": 0.0})
    first = train_expert("x", backbone, [corpus], recipe)
    fisher = fisher_of(backbone, first, corpus, recipe, 24)
    pasts = {
        "plain": Past(first),
        "replay": Past(first, memory=[corpus.remembered(0.5, 0)]),
        "ewc": Past(first, anchors=[Anchor(first.sites, fisher)], strength=1e4),
    }
    choice_CD, texts = backbone.embed(["loud", "quiet"]), ["SHOUT 1!!!", "hush 1..."]
    kept = {
        name: margin(
            states(backbone, train_expert("x", backbone, [turned], recipe, past=past), texts)
            @ choice_CD.T
        )
        for name, past in pasts.items()
    }
    assert kept["plain"] < kept["replay"]
    assert kept["plain"] < kept["ewc"]


def test_a_past_is_told_by_what_names_it():
    assert AFRESH.told == {}
    card = TaskCard(id="sky", title="Sky")
    memory = [Corpus([Example("a", ("b", "c"), 0)], card)]
    past = Past(origin="sst2 0f", memory=memory, anchors=[Anchor({}, {})], strength=50)
    assert past.told == {"start": "sst2 0f", "memory": "1 of sky", "ewc": "50 x 1 tasks"}
