import json
import shutil
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from benchmarks.generation.shapes import (
    SHAPES,
    SPECIAL,
    Shape,
    _empty,
    adapters,
    arrivals,
    checkpoint,
    prompts,
)

KINDS = {"llama": AutoModelForCausalLM, "t5": AutoModelForSeq2SeqLM}


def written(model, rows):
    """Eight more tokens a row, greedily."""
    ids = torch.tensor(rows)
    with torch.no_grad():
        texts = model.eval().generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
            max_new_tokens=8, min_new_tokens=8,
        )  # fmt: skip
    return texts[:, -8:]


def files_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_the_same_files_come_out_again(tiny_shape, tmp_path):
    first = [
        files_of(f) for f in (checkpoint(tiny_shape, tmp_path), *adapters(tiny_shape, 2, tmp_path))
    ]
    shutil.rmtree(tmp_path / tiny_shape.name)
    again = [
        files_of(f) for f in (checkpoint(tiny_shape, tmp_path), *adapters(tiny_shape, 2, tmp_path))
    ]
    assert first == again


def test_adapters_are_loaded_by_peft_and_each_one_changes_what_is_written(tiny_shape, tmp_path):
    base = KINDS[tiny_shape.family].from_pretrained(checkpoint(tiny_shape, tmp_path))
    rows = prompts(tiny_shape, 4, 12)
    bare = written(base, rows)
    first, second = adapters(tiny_shape, 2, tmp_path)
    model = PeftModel.from_pretrained(base, first, adapter_name="first")
    model.load_adapter(second, adapter_name="second")
    stored = load_file(first / "adapter_model.safetensors")
    loaded = {n.replace(".first", ""): p for n, p in model.named_parameters() if ".first" in n}
    assert stored.keys() == loaded.keys()
    assert all(torch.equal(stored[name], loaded[name]) for name in stored)
    texts = {"bare": bare}
    for name in ("first", "second"):
        model.set_adapter(name)
        texts[name] = written(model, rows)
    assert not torch.equal(texts["first"], bare)
    assert not torch.equal(texts["second"], bare)
    assert not torch.equal(texts["first"], texts["second"])


def test_every_linear_layer_but_the_head_is_adapted(tiny_shape, tmp_path):
    tensors = load_file(adapters(tiny_shape, 1, tmp_path)[0] / "adapter_model.safetensors")
    linear = {"llama": 7, "t5": (4 + 3) + (4 + 4 + 3)}[tiny_shape.family]  # of a layer
    assert len(tensors) == 2 * tiny_shape.layers * linear
    assert not any("lm_head" in name for name in tensors)


def test_what_is_there_is_kept_and_another_shape_of_the_name_is_made_anew(tmp_path):
    shape = Shape("one", "llama", 2, 32, 2, 48, 96)
    made = checkpoint(shape, tmp_path) / "made.json"
    before = made.stat().st_ino
    assert (checkpoint(shape, tmp_path) / "made.json").stat().st_ino == before
    other = replace(shape, layers=1)
    config = json.loads((checkpoint(other, tmp_path) / "config.json").read_text())
    assert config["num_hidden_layers"] == 1


def test_prompts_hold_no_special_token_and_stay_the_same(tiny_shape):
    rows = prompts(tiny_shape)
    assert (len(rows), {len(row) for row in rows}) == (64, {32})
    assert {token for row in rows for token in row} == set(
        range(len(SPECIAL), tiny_shape.vocabulary)
    )
    assert prompts(tiny_shape, 3) == rows[:3]
    assert prompts(tiny_shape, seed=1) != rows


def test_requests_arrive_one_after_the_other_at_the_rate_on_average():
    times = arrivals(4_000, rate=20)
    assert times == sorted(times)
    assert times[-1] == pytest.approx(4_000 / 20, rel=0.05)
    assert arrivals(10, rate=20) == times[:10]
    assert arrivals(10, rate=20, seed=1) != times[:10]


def test_the_tokenizer_writes_tokens_as_words(tiny_shape, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint(tiny_shape, tmp_path))
    assert tokenizer("w17 w4 never")["input_ids"] == [17, 4, SPECIAL.index("<unk>")]
    assert tokenizer.decode([17, 4]) == "w17 w4"


@pytest.mark.parametrize(("name", "millions"), [("34m", 33.7), ("160m", 162.4), ("t5", 46.2)])
def test_shapes_have_the_sizes_they_are_named_for(name, millions):
    model = _empty(SHAPES[name])
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
