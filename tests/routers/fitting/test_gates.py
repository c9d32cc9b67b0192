"""Fitting gates and artefacts on the tiny backbone: what moves, and what must not."""

from functools import partial

import pytest
import torch

from experts.backbones.tiny import tiny_encoder
from experts.kernels import Use
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
def make(backbone):
    """A random expert of a kind: gates have something to close."""
    return partial(random_expert, backbone)


@pytest.fixture
def expert(make):
    return make("lora")


def random_expert(backbone, name):
    kind = KINDS[name]
    generator = torch.Generator().manual_seed(1)
    fresh = kind.initial(kind.target_sites(backbone.sites.values()), rank=2, generator=generator)
    sites = {
        site: {part: torch.randn(t.shape, generator=generator) * 0.3 for part, t in parts.items()}
        for site, parts in fresh.items()
    }
    return ExpertWeights("tone", name, kind.group(sites), sites)


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


KIND_NAMES = pytest.mark.parametrize("kind", list(KINDS))


@KIND_NAMES
def test_open_and_closed_gates_are_the_expert_and_half_of_it(backbone, make, kind):
    """sigmoid(v . u) is 1/2 for v = 0: the expert's output at strength 1/2, whatever its kind."""
    expert = make(kind)
    rows = backbone.tokenize([e.input for e in EXAMPLES[:5]])
    stack = stack_experts([expert])
    zeros = {site: torch.zeros(backbone.sites[site].in_features) for site in expert.sites}
    gated = GatedMix(groups=(), size=5, stack=stack, gates=zeros)
    half = build_mix([RowMix.of({"tone": 1.0}, strength=0.5)] * 5, [stack])
    with torch.no_grad():
        torch.testing.assert_close(backbone.run(rows, gated), backbone.run(rows, half))


def one_site(backbone, expert, tokens=12):
    """One site's mix with a random gate, in float64: the mix, the site, tokens, and an output."""
    generator = torch.Generator().manual_seed(2)
    site, tensors = next(iter(expert.sites.items()))
    wide = {part: t.double() for part, t in tensors.items()}
    stack = stack_experts([ExpertWeights("tone", expert.kind, expert.group, {site: wide})])
    D, O = backbone.sites[site].in_features, backbone.sites[site].out_features
    x_ND = torch.randn(tokens, D, generator=generator, dtype=torch.float64)
    y_NO = torch.randn(tokens, O, generator=generator, dtype=torch.float64)
    gates = {site: torch.randn(D, generator=generator, dtype=torch.float64)}
    return GatedMix(groups=(), size=3, stack=stack, gates=gates), site, x_ND, y_NO


@KIND_NAMES
def test_a_gate_scales_the_output_of_the_expert_token_by_token(backbone, make, kind):
    """PHATGOOSE, section 3.1: y + sigmoid(v . u) times what the expert adds to y."""
    mix, site, x_ND, y_NO = one_site(backbone, make(kind))
    got_NO = mix.apply(site, x_ND, y_NO.clone(), torch.arange(len(x_ND)) % 3)
    alone = Use(torch.zeros(1, 1).long(), torch.ones(1, 1).double(), 1, len(x_ND))
    whole = KINDS[kind].apply(
        y_NO.clone(), x_ND, mix.stack.sites[site], alone, torch.ones(1).double()
    )
    open_N1 = torch.sigmoid(x_ND @ mix.gates[site]).unsqueeze(1)
    torch.testing.assert_close(got_NO, y_NO + open_N1 * (whole - y_NO), atol=1e-9, rtol=0)


def test_for_lora_the_gate_may_stand_in_the_place_of_the_weight(backbone, make):
    """Its output is linear in the weight; that of a bottleneck is not."""
    for kind, same in (("lora", True), ("bottleneck", False)):
        mix, site, x_ND, y_NO = one_site(backbone, make(kind))
        open_N1 = torch.sigmoid(x_ND @ mix.gates[site]).unsqueeze(1)
        use = Use(torch.zeros(3, 1).long(), open_N1, 1, len(x_ND), per_token=True)
        weighed_NO = KINDS[kind].apply(
            y_NO.clone(), x_ND, mix.stack.sites[site], use, torch.ones(3).double()
        )
        got_NO = mix.apply(site, x_ND, y_NO.clone())
        assert torch.allclose(got_NO, weighed_NO, atol=1e-9, rtol=0) == same


def test_artefacts_hold_every_part_and_nothing_unseen(backbone, expert):
    asked: list[str] = []
    embed = backbone.embed

    def listening(texts, **kwargs):
        asked.extend(texts)
        return embed(texts, **kwargs)

    backbone.embed = listening
    artefacts = fit_artefacts(backbone, backbone, expert, EXAMPLES, CARD, ("other",), RECIPE, None)
    assert artefacts.embedder == backbone.fingerprint
    torch.testing.assert_close(artefacts.instructions, embed(CARD.instructions))
    torch.testing.assert_close(artefacts.choices, embed(["loud", "noisy", "quiet"]))
    assert artefacts.vectors.keys() == {"gate", "arrow"}
    norms = artefacts.centroids.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    assert artefacts.seen == len(EXAMPLES)
    assert "deafening" not in asked


def test_a_task_without_labels_gets_prototypes_of_its_choices(backbone, expert):
    examples = [Example(f"What is {i}?", (f"number {i}", f"letter {i}"), i % 2) for i in range(20)]
    card = TaskCard(id="tone", title="Tone", instructions=("Answer.",))
    artefacts = fit_artefacts(backbone, backbone, expert, examples, card, (), RECIPE, None)
    assert artefacts.choices.shape == (32, backbone.width)
