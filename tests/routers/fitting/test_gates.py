"""Fitting gates and artefacts on the tiny backbone: what moves, and what must not."""

import pytest
import torch

from experts.backbones.tiny import tiny_encoder
from experts.kinds import KINDS
from experts.manifest import Label, TaskCard, Wording
from experts.mix import RowMix, build_mix
from experts.stacks import stack_experts
from experts.training.data import Example
from experts.training.recipe import Recipe
from experts.weights import ExpertWeights
from routers.fitting import gates
from routers.fitting.artefacts import fit_artefacts
from routers.fitting.gates import GatedMix, fit_gates

CARD = TaskCard(
    id="tone",
    title="Tone",
    instructions=("Say how loud it is.", "Judge the volume."),
    labels=(
        Label(
            value="loud", wordings=(Wording(value="noisy"),), unseen=Wording(value="deafening"),
            statements=("It is loud.", "It is noisy."), negations=("It is not loud.",),
        ),
        Label(value="quiet", statements=("It is quiet.",), negations=("It is not quiet.",)),
    ),
)  # fmt: skip
EXAMPLES = [
    Example(text, ("loud", "quiet"), answer)
    for i in range(12)
    for text, answer in ((f"SHOUT {i}!!!", 0), (f"hush {i}...", 1))
]
RECIPE = Recipe(rank=2, batch_size=8, epochs=1, min_steps=120, noise=0.0)


@pytest.fixture
def backbone():
    return tiny_encoder()


@pytest.fixture
def expert(backbone):
    """A random expert: gates have something to close."""
    kind = KINDS["lora"]
    generator = torch.Generator().manual_seed(1)
    fresh = kind.initial(kind.target_sites(backbone.sites.values()), rank=2, generator=generator)
    sites = {
        site: {part: torch.randn(t.shape, generator=generator) * 0.3 for part, t in parts.items()}
        for site, parts in fresh.items()
    }
    return ExpertWeights("tone", "lora", kind.group(sites), sites)


def test_gates_learn_and_nothing_else_moves(backbone, expert, monkeypatch):
    monkeypatch.setattr(gates, "LEARNING_RATE", 0.05)
    losses: list[float] = []
    before = {
        site: {p: t.clone() for p, t in parts.items()} for site, parts in expert.sites.items()
    }
    weights = {name: t.clone() for name, t in backbone.model.state_dict().items()}
    fitted = fit_gates(
        backbone, expert, EXAMPLES, CARD, (), RECIPE, lambda _d, _n, loss: losses.append(loss)
    )
    assert len(losses) == gates.STEPS
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])
    for site, parts in expert.sites.items():
        for part, tensor in parts.items():
            assert torch.equal(tensor, before[site][part])
            assert tensor.grad is None
    assert all(torch.equal(t, weights[n]) for n, t in backbone.model.state_dict().items())
    assert fitted.keys() == expert.sites.keys()
    moved = [g for g in fitted.values() if g.any()]
    assert moved
    for gate in moved:  # stored standardised
        assert float(gate.mean()) == pytest.approx(0, abs=1e-5)
        assert not gate.requires_grad


def test_open_and_closed_gates_are_the_expert_and_half_of_it(backbone, expert):
    """sigmoid(v . u) is 1/2 for v = 0; for LoRA that is a mix at strength 1/2."""
    rows = backbone.tokenize([e.input for e in EXAMPLES[:5]])
    stack = stack_experts([expert])
    zeros = {site: torch.zeros(backbone.sites[site].in_features) for site in expert.sites}
    gated = GatedMix(groups=(), size=5, stack=stack, gates=zeros)
    half = build_mix([RowMix.of({"tone": 1.0}, strength=0.5)] * 5, [stack])
    with torch.no_grad():
        torch.testing.assert_close(backbone.run(rows, gated), backbone.run(rows, half))


def test_artefacts_hold_every_part_and_nothing_unseen(backbone, expert):
    asked: list[str] = []
    embed = backbone.embed

    def listening(texts, **kwargs):
        asked.extend(texts)
        return embed(texts, **kwargs)

    backbone.embed = listening
    artefacts = fit_artefacts(backbone, expert, EXAMPLES, CARD, ("other",), RECIPE)
    assert artefacts.embedder == backbone.fingerprint
    torch.testing.assert_close(artefacts.instructions, embed(CARD.instructions))
    torch.testing.assert_close(artefacts.choices, embed(["loud", "noisy", "quiet"]))
    assert artefacts.vectors.keys() == {"gate", "arrow"}
    norms = artefacts.centroids.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    assert "deafening" not in asked


def test_a_task_without_labels_gets_prototypes_of_its_choices(backbone, expert):
    examples = [Example(f"What is {i}?", (f"number {i}", f"letter {i}"), i % 2) for i in range(20)]
    card = TaskCard(id="tone", title="Tone", instructions=("Answer.",))
    artefacts = fit_artefacts(backbone, expert, examples, card, (), RECIPE)
    assert artefacts.choices.shape == (32, backbone.width)
