"""Artefacts of an expert that joins with a sentence, with examples, or with nothing."""

import pytest
import torch

from experts.artefacts import Artefacts
from experts.backbones import open_backbone
from experts.manifest import BackboneRef, Label, Manifest, Wording
from routers.fitting.describe import describe

NOTHING = Artefacts("")


@pytest.fixture(scope="module")
def backbone():
    return open_backbone("tiny-random")


@pytest.fixture(scope="module")
def expert(backbone, make_expert):
    return make_expert("lora", "e")


def said(backbone, **what):
    reference = BackboneRef(id=backbone.id, fingerprint=backbone.fingerprint)
    return Manifest(**{"id": "e", "title": "e", "kind": "lora", "backbone": reference, **what})


def test_instructions_and_labels_are_embedded(backbone, expert):
    labels = (
        Label(value="up", wordings=(Wording(value="rising"),)),
        Label(value="down"),
    )
    manifest = said(backbone, title="Gliding", instructions=("Say how it flies.",), labels=labels)
    found = describe(backbone, backbone, expert, manifest, NOTHING)
    assert torch.equal(found.instructions, backbone.embed(["Say how it flies."]))
    assert torch.equal(found.choices, backbone.embed(["up", "rising", "down"]))
    assert found.centroids is None
    assert found.routable
    assert found.embedder == backbone.fingerprint


def test_a_title_will_do_and_an_id_will_not(backbone, expert):
    titled = describe(
        backbone, backbone, expert, said(backbone, title="How a glider flies"), NOTHING
    )
    assert torch.equal(titled.instructions, backbone.embed(["How a glider flies"]))
    assert not describe(backbone, backbone, expert, said(backbone), NOTHING).routable


def test_examples_become_centroids_of_unit_length(backbone, expert):
    texts = ["It climbs.", "It sinks.", "It turns."]
    found = describe(backbone, backbone, expert, said(backbone), NOTHING, texts)
    assert found.routable
    half_BD = backbone.halfway(backbone.features(texts))
    mean_D = torch.nn.functional.normalize(half_BD.mean(0), dim=-1)
    torch.testing.assert_close(found.centroids[0], mean_D)
    torch.testing.assert_close(found.centroids.norm(dim=1), torch.ones(len(found.centroids)))


def test_prototypes_come_from_the_weights_where_a_kind_has_them(backbone, expert, make_expert):
    assert describe(backbone, backbone, expert, said(backbone), NOTHING).vectors.keys() == {"arrow"}
    other = make_expert("bottleneck", "b")
    assert describe(backbone, backbone, other, said(backbone), NOTHING).vectors == {}


def test_what_came_along_stays_when_the_same_embedder_made_it(backbone, expert):
    rows = torch.eye(3, backbone.width)
    gates = {"gate": {"site": torch.ones(4)}}
    told = {"inputs": torch.ones(1, backbone.feature_width), "seen": 9}
    brought = Artefacts(backbone.fingerprint, rows[:1], rows[1:2], rows[2:], gates, **told)
    kept = describe(backbone, backbone, expert, said(backbone), brought)
    assert all(map(torch.equal, kept.rows(), brought.rows()))
    assert kept.vectors["gate"] is gates["gate"]
    assert (kept.inputs, kept.seen) == (brought.inputs, 9)
    newer = describe(
        backbone, backbone, expert, said(backbone, instructions=("Fly.",)), brought, ["It is."]
    )
    assert torch.equal(newer.instructions, backbone.embed(["Fly."]))
    assert torch.equal(newer.choices, brought.choices)
    assert not torch.equal(newer.centroids, brought.centroids)
    assert newer.seen == 1
    foreign = Artefacts("another embedder", *brought.rows(), gates)
    dropped = describe(backbone, backbone, expert, said(backbone), foreign)
    assert (dropped.instructions, dropped.choices) == (None, None)
    assert torch.equal(dropped.centroids, brought.centroids), "inputs are the backbone's to see"
    assert dropped.vectors["gate"] is gates["gate"]
