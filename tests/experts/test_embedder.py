"""The embedder: shared where it is the backbone, a model beside it where it is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from experts.backbones import TextEncoder, open_backbone
from experts.embedder import SentenceEmbedder, open_embedder
from experts.errors import BackboneError

TEXTS = ["Where is the nearest station?", "no", *[f"sentence {i}" for i in range(20)]]


@pytest.fixture(scope="module")
def backbone(sentence_model: Path) -> TextEncoder:
    return open_backbone(str(sentence_model))


def altered(source: Path, target: Path, name: str, **fields: object) -> Path:
    """A copy of a model's folder with fields of one of its JSON files changed."""
    shutil.copytree(source, target)
    path = target / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return target


def test_the_backbone_is_its_own_embedder(backbone, sentence_model):
    assert open_embedder("backbone", backbone) is backbone
    assert open_embedder("somewhere", backbone, backbone_name="somewhere") is backbone
    assert open_embedder(str(sentence_model), backbone) is backbone, "equal weights are shared"


def test_a_model_of_the_same_weights_that_reads_them_otherwise_is_not_shared(
    backbone, sentence_model, tmp_path
):
    pooling = next(sentence_model.glob("1_*/config.json")).relative_to(sentence_model)
    other = altered(sentence_model, tmp_path / "cls", str(pooling), pooling_mode="cls")
    found = open_embedder(str(other), backbone)
    assert isinstance(found, SentenceEmbedder)
    assert found.fingerprint != SentenceEmbedder.load(str(sentence_model)).fingerprint


def test_a_model_gives_unit_vectors_of_its_own_width(sentence_model):
    found = open_embedder(str(sentence_model), open_backbone("tiny-random"))
    assert isinstance(found, SentenceEmbedder)
    vector_BW = found.embed(TEXTS)
    assert vector_BW.shape == (len(TEXTS), 48) == (len(TEXTS), found.width)
    torch.testing.assert_close(vector_BW.norm(dim=1), torch.ones(len(TEXTS)))
    one_W = found.embed(TEXTS[:1])[0]
    torch.testing.assert_close(vector_BW[0], one_W, atol=1e-5, rtol=0)
    assert found.embed([]).shape == (0, 48)
    assert (found.max_tokens, found.count("no")) == (64, 4)


def test_a_fingerprint_is_of_what_the_vectors_depend_on(sentence_model, tmp_path):
    """The same in every process, after every pass; another for another tokenizer or prompt."""
    first = SentenceEmbedder.load(str(sentence_model))
    assert len(first.fingerprint) == 64
    first.embed(TEXTS)
    again = shutil.copytree(sentence_model, tmp_path / "again")
    assert SentenceEmbedder.load(str(again)).fingerprint == first.fingerprint
    config = "config_sentence_transformers.json"
    prompted = altered(
        sentence_model, tmp_path / "prompted", config,
        prompts={"query": "query: "}, default_prompt_name="query",
    )  # fmt: skip
    assert SentenceEmbedder.load(str(prompted)).fingerprint != first.fingerprint


def test_a_model_that_is_not_there_is_told(backbone, tmp_path):
    with pytest.raises(BackboneError, match="Cannot load embedder"):
        open_embedder(str(tmp_path / "nowhere"), backbone)
