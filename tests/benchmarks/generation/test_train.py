"""A small training from beginning to end, for either family."""

import json

import pytest
import torch
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file

from benchmarks.generation import backbone as backbones
from benchmarks.generation.backbone import open_backbone, train_backbone
from benchmarks.generation.checkpoints import FAMILIES, encode_batch, make_tokenizer
from benchmarks.generation.experts import RANK, TARGETS
from benchmarks.generation.learning import Course, exact_match
from benchmarks.generation.tasks import TASKS
from benchmarks.generation.train import make

IDS = ("count-vowels", "acronym")
COURSE = Course(steps=4, batch=4, rate=1e-2, warmup=2, precision="float32")


@pytest.fixture(scope="module", params=FAMILIES)
def made(request, tiny, tmp_path_factory):
    """The folder of a family, and what `make` returned."""
    out = tmp_path_factory.mktemp(request.param)
    found = make(
        request.param, out, size=tiny, course=COURSE, expert_course=COURSE, ids=IDS, tests=10
    )
    return request.param, out, found


def test_peft_loads_every_expert_and_it_has_learnt(made):
    family, out, _ = made
    batch = encode_batch(family, make_tokenizer(family), TASKS["acronym"].tests(4))
    bare = open_backbone(family, out / "backbone").eval()(**batch).logits
    for id in IDS:
        model = PeftModel.from_pretrained(
            open_backbone(family, out / "backbone"), out / "adapters" / id
        )
        assert not torch.allclose(model.eval()(**batch).logits, bare, atol=1e-4)


def test_an_expert_changes_every_linear_layer_and_names_no_place(made):
    family, out, _ = made
    folder = out / "adapters" / IDS[0]
    assert {p.name for p in folder.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip
    config = PeftConfig.from_pretrained(folder)
    assert config.base_model_name_or_path is None
    assert set(config.target_modules) == set(TARGETS[family])
    linear = [
        name
        for name, module in open_backbone(family, out / "backbone").named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    ]
    tensors = load_file(folder / "adapter_model.safetensors")
    assert set(tensors) == {f"base_model.model.{n}.lora_{m}.weight" for n in linear for m in "AB"}
    assert all(RANK in tensor.shape for tensor in tensors.values())


def test_scores_are_those_of_the_folders(made):
    family, out, found = made
    kept = json.loads((out / "scores.json").read_text("utf-8"))
    assert kept["tasks"] == found
    assert set(kept["matrix"]) == {"bare", *IDS}
    bare = open_backbone(family, out / "backbone")
    for id in IDS:
        other = IDS[1 - IDS.index(id)]
        tests = TASKS[id].tests(10)
        assert found[id]["bare"] == exact_match(bare, family, make_tokenizer(family), tests)
        assert found[id]["wrong"] == kept["matrix"][other][id]
        assert found[id]["right"] == kept["matrix"][id][id]


def test_what_is_finished_is_not_trained_again(made, tiny, monkeypatch):
    family, out, found = made
    monkeypatch.setattr("benchmarks.generation.learning.Learner.step", None)  # would fail
    assert found == make(family, out, size=tiny, ids=IDS, tests=10)


def test_experts_are_never_joined_to_another_backbone(tiny, tmp_path):
    (tmp_path / "adapters").mkdir()
    with pytest.raises(FileExistsError, match="adapters holds experts"):
        make("causal", tmp_path, size=tiny, course=COURSE, expert_course=COURSE, ids=IDS, tests=2)
    assert not (tmp_path / "backbone").exists()


def test_an_interrupted_backbone_goes_on_and_is_the_same(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(backbones, "KEPT_EVERY", 2)
    seen: list[int] = []

    def stop_at_three(done: int, _: float) -> None:
        seen.append(done)
        if done == 3 and seen.count(3) == 1:
            raise KeyboardInterrupt

    train_backbone("causal", tmp_path / "through", lambda *_: None, COURSE, tiny)
    with pytest.raises(KeyboardInterrupt):
        train_backbone("causal", tmp_path / "broken", stop_at_three, COURSE, tiny)
    assert not (tmp_path / "broken").exists()
    train_backbone("causal", tmp_path / "broken", stop_at_three, COURSE, tiny)
    assert seen == [0, 1, 2, 3, 2, 3]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken", "through"]
    weights = [load_file(tmp_path / n / "model.safetensors") for n in ("through", "broken")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
