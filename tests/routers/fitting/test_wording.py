"""What experts say of themselves, embedded anew for another embedder, once."""

import json
import shutil

import pytest
import torch

from experts.artefacts import Artefacts
from experts.backbones.tiny import tiny_encoder
from experts.embedder import SentenceEmbedder
from experts.manifest import BackboneRef, Label, Manifest, Wording
from routers.fitting.wording import FOLDER, Wordings

SETTINGS = "config_sentence_transformers.json"
LABELS = (Label(value="up", wordings=(Wording(value="rising"),)), Label(value="down"))
SAID = Manifest(
    id="flight", title="Flight", kind="lora", instructions=("Say how it flies.",), labels=LABELS,
    backbone=BackboneRef(id="tiny-random", fingerprint="0" * 64),
)  # fmt: skip


class Counted(SentenceEmbedder):
    """Counts the texts that it embeds."""

    seen = 0

    def embed(self, texts):
        self.seen += len(texts)
        return super().embed(texts)


@pytest.fixture
def embedder(sentence_model):
    return Counted.load(str(sentence_model))


@pytest.fixture(scope="module")
def artefacts():
    backbone = tiny_encoder()
    return Artefacts(
        backbone.fingerprint, backbone.embed(["Say how it flies."]),
        backbone.embed(["up", "rising", "down"]),
        backbone.halfway(backbone.features(["It flies."])),
        {"gate": {"site": torch.ones(4)}},
    )  # fmt: skip


def test_words_are_the_embedders_and_all_else_stays(embedder, artefacts, tmp_path):
    found = Wordings(embedder, tmp_path).of(SAID, artefacts)
    assert found.embedder == embedder.fingerprint
    close = {"atol": 1e-3, "rtol": 0}
    torch.testing.assert_close(found.instructions, embedder.embed(SAID.instructions), **close)
    torch.testing.assert_close(found.choices, embedder.embed(["up", "rising", "down"]), **close)
    assert found.centroids is artefacts.centroids
    assert found.vectors is artefacts.vectors
    assert Wordings(embedder, tmp_path).of(SAID, found) is found


def test_texts_are_embedded_once_whatever_the_expert_is_called(embedder, artefacts, tmp_path):
    first = Wordings(embedder, tmp_path).of(SAID, artefacts)
    assert embedder.seen == 4
    renamed = SAID.model_copy(update={"id": "gliding", "version": 7})
    again = Wordings(embedder, tmp_path).of(renamed, artefacts)
    assert embedder.seen == 4
    torch.testing.assert_close(again.choices, first.choices, atol=1e-3, rtol=0)
    other = SAID.model_copy(update={"instructions": ("Tell how it flies.",)})
    Wordings(embedder, tmp_path).of(other, artefacts)
    assert embedder.seen == 8


def test_what_an_expert_had_no_vectors_of_it_has_none_of(embedder, artefacts, tmp_path):
    wordings = Wordings(embedder, tmp_path)
    bare = wordings.of(SAID, Artefacts("", centroids=artefacts.centroids))
    assert (bare.instructions, bare.choices) == (None, None)
    unlabelled = SAID.model_copy(update={"labels": ()})
    assert wordings.of(unlabelled, artefacts).choices is None, "prototypes have no texts"


@pytest.mark.parametrize("damage", [b"", b"no safetensors file", None])
def test_a_damaged_file_is_made_anew(embedder, artefacts, tmp_path, damage):
    first = Wordings(embedder, tmp_path).of(SAID, artefacts)
    (path,) = (tmp_path / FOLDER).rglob("*.safetensors")
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2] if damage is None else damage)
    again = Wordings(embedder, tmp_path).of(SAID, artefacts)
    torch.testing.assert_close(again.choices, first.choices, atol=1e-3, rtol=0)
    assert path.read_bytes() == good


def test_where_nothing_can_be_written_it_is_held_in_memory(embedder, artefacts, tmp_path, caplog):
    (tmp_path / FOLDER).write_text("a file where a folder should be")
    wordings = Wordings(embedder, tmp_path)
    for _ in range(2):
        assert wordings.of(SAID, artefacts).choices.shape == (3, 48)
    assert len(caplog.records) == 1


def test_two_embedders_keep_theirs_apart(embedder, artefacts, tmp_path, sentence_model):
    config = shutil.copytree(sentence_model, tmp_path / "other") / SETTINGS
    prompt = {"prompts": {"ask": "ask: "}, "default_prompt_name": "ask"}
    config.write_text(json.dumps({**json.loads(config.read_text()), **prompt}))
    second = Counted.load(str(tmp_path / "other"))
    first_one = Wordings(embedder, tmp_path).of(SAID, artefacts).choices
    second_one = Wordings(second, tmp_path).of(SAID, artefacts).choices
    assert not torch.allclose(first_one, second_one, atol=1e-2)
    again = Wordings(embedder, tmp_path).of(SAID, artefacts).choices
    torch.testing.assert_close(again, first_one, atol=1e-3, rtol=0)
