"""Language models from disk: only safetensors is read, and what cannot be read says why."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from experts.backbones import open_backbone
from experts.errors import BackboneError
from tests.architectures import Checkpoint, write_checkpoint

FAMILIES = {"causal": "llama", "seq2seq": "t5"}


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Checkpoint:
    return write_checkpoint(tmp_path, request.param, {})


def test_pickled_weights_are_refused(checkpoint):
    weights = checkpoint.folder / "model.safetensors"
    torch.save(load_file(weights), checkpoint.folder / "pytorch_model.bin")
    assert open_backbone(str(checkpoint.folder))  # those in safetensors are there too
    weights.unlink()
    with pytest.raises(BackboneError, match=r"only pytorch_model.bin; pickled .* safetensors"):
        open_backbone(str(checkpoint.folder))


def test_weights_that_are_damaged_or_not_there_say_so(checkpoint):
    weights = checkpoint.folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BackboneError, match=r"Cannot load backbone .*incomplete"):
        open_backbone(str(checkpoint.folder))
    weights.unlink()
    with pytest.raises(BackboneError, match=r"no file named model.safetensors"):
        open_backbone(str(checkpoint.folder))


def test_the_fingerprint_is_of_the_tensors_however_they_lie_and_compute(checkpoint, tmp_path):
    whole = open_backbone(str(checkpoint.folder))
    checkpoint.in_peft(None).save_pretrained(tmp_path / "in-parts", max_shard_size="30KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "in-parts" / name).write_bytes((checkpoint.folder / name).read_bytes())
    assert len(list((tmp_path / "in-parts").glob("*.safetensors"))) > 1
    for folder, dtype in ((tmp_path / "in-parts", "float64"), (checkpoint.folder, "bfloat16")):
        assert open_backbone(str(folder), dtype=dtype).fingerprint == whole.fingerprint
    other = checkpoint.in_peft(None)
    with torch.no_grad():
        other.get_input_embeddings().weight[0, 0] += 1
    other.save_pretrained(checkpoint.folder)
    assert open_backbone(str(checkpoint.folder)).fingerprint != whole.fingerprint
