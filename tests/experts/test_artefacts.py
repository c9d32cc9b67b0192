"""Artefacts keep their names and values through their flat form."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from experts.artefacts import REQUEST_ARTEFACTS, Artefacts


def test_the_flat_form_gives_the_artefacts_again(artefacts: Artefacts) -> None:
    site = "encoder.layer.0.attention.self.query"
    vectors = {"gate": {site: torch.ones(3)}, "arrow": {site: torch.zeros(3)}}
    whole = Artefacts("e", artefacts.instructions, centroids=artefacts.centroids, vectors=vectors)
    flat = whole.to_tensors()
    assert set(flat) == {"instructions", "centroids", f"gate.{site}", f"arrow.{site}"}
    again = Artefacts.from_tensors("e", flat)
    assert again.embedder == "e"
    assert again.choices is None
    assert torch.equal(again.centroids, artefacts.centroids)
    assert torch.equal(again.vectors["gate"][site], torch.ones(3))


def test_every_request_artefact_has_its_own_place(artefacts: Artefacts) -> None:
    again = Artefacts.from_tensors("e", artefacts.to_tensors())
    for name in REQUEST_ARTEFACTS:
        assert torch.equal(getattr(again, name), getattr(artefacts, name))


def test_names_of_a_later_version_are_ignored() -> None:
    flat = {"sinkhorn": torch.ones(2), "comb.site": torch.ones(2), "gate": torch.ones(2)}
    again = Artefacts.from_tensors("e", flat)
    assert again.to_tensors() == {}


def test_examples_are_kept_in_the_flat_form_and_for_routing(artefacts: Artefacts) -> None:
    whole = replace(artefacts, examples=torch.ones(2, 3))
    again = Artefacts.from_tensors("e", whole.to_tensors())
    assert torch.equal(again.examples, whole.examples)
    assert torch.equal(again.slim().examples, whole.examples.half())
    assert len(whole.rows()) == len(artefacts.rows()), "a shortlist's sieve leaves them out"


def test_what_inputs_tell_keeps_its_count_and_takes_no_room_while_routing() -> None:
    told = Artefacts("e", inputs=torch.ones(3, 4), seen=1700)
    again = Artefacts.from_tensors("e", told.to_tensors())
    assert torch.equal(again.inputs, told.inputs)
    assert again.seen == 1700
    assert again.slim().inputs is None
    many = Artefacts("e", inputs=torch.ones(1, 4), seen=10**9).to_tensors()["seen"]
    assert many.half().isfinite()


@pytest.mark.parametrize(
    "seen", [torch.ones(2), torch.tensor(float("nan")), torch.tensor(float("inf")),
             torch.tensor(-3.0)],
)  # fmt: skip
def test_a_count_that_is_none_is_nothing(seen: torch.Tensor) -> None:
    flat = {"inputs": torch.ones(1, 4), "seen": seen}
    assert Artefacts.from_tensors("e", flat).seen == 0
    assert Artefacts.from_tensors("e", {"inputs": torch.ones(1, 4)}).seen == 0
