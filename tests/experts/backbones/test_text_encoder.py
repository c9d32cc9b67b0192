"""The text encoder: passes, lengths, sites; BERT-, RoBERTa- and MPNet-like models from disk."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from transformers import (
    BertConfig,
    BertModel,
    MPNetConfig,
    MPNetModel,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from experts.backbones import TextEncoder, open_backbone
from experts.backbones.base import length_buckets
from experts.backbones.demo import demo_path
from experts.backbones.text_encoder import Pooling
from experts.backbones.tiny import tiny_encoder
from experts.errors import BackboneError, InputTooLong
from experts.host import HostExpert
from experts.kinds import KINDS, Adapter
from experts.mix import RowMix, build_mix
from experts.stacks import stack_experts
from experts.weights import ExpertWeights

EXACT = {"rtol": 1e-9, "atol": 1e-9}
LIMIT = 40

Rows = list[list[int]]


def test_encode_is_run_row_by_row(
    encoder64: TextEncoder, rows: Rows, make_expert: Callable[..., ExpertWeights]
) -> None:
    stack = stack_experts([make_expert("lora", "a"), make_expert("lora", "b")])
    mixes = [RowMix.of({"a": 0.2 * i, "b": 1 - 0.2 * i}) for i in range(5)]
    for mix in (None, build_mix(mixes, [stack])):
        together = encoder64.encode(rows, mix)
        for i, row in enumerate(rows):
            alone = encoder64.run([row], mix and mix.rows(torch.tensor([i])))
            torch.testing.assert_close(together[i : i + 1], alone, **EXACT)
    assert encoder64.encode([]).shape == (0, 32)


def test_pooling_means_over_real_tokens(encoder64: TextEncoder, rows: Rows) -> None:
    states = encoder64.model(input_ids=torch.tensor([rows[0]])).last_hidden_state
    mean = states.mean(1) / states.mean(1).norm(dim=-1, keepdim=True)
    torch.testing.assert_close(encoder64.run(rows)[:1], mean, **EXACT)
    first = TextEncoder("cls", encoder64.model, encoder64.tokenizer, Pooling("cls", False), 128)
    torch.testing.assert_close(first.run(rows)[:1], states[:, 0], **EXACT)


def test_the_backbone_is_frozen_and_embeds_without_gradients(texts: tuple[str, ...]) -> None:
    encoder = open_backbone("tiny-random")
    assert not any(p.requires_grad for p in encoder.model.parameters())
    embedded = encoder.embed(texts)
    assert not embedded.requires_grad
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(len(texts)))


def test_too_long_is_an_error_unless_truncated(encoder64: TextEncoder) -> None:
    whole = encoder64.tokenize(["x" * 126])[0]
    assert len(whole) == encoder64.max_tokens == 128
    with pytest.raises(InputTooLong, match="129 tokens and the backbone takes 128") as raised:
        encoder64.tokenize(["short", "x" * 127])
    assert raised.value.details == {"part": "input", "length": 129, "limit": 128}
    assert encoder64.tokenize(["x" * 500], truncate=True)[0] == whole
    assert encoder64.embed(["x" * 500]).shape == (1, 32)


@given(st.lists(st.integers(1, 300), max_size=60), st.sampled_from([300, 1000, 4096]))
def test_length_buckets_are_a_partition_within_bounds(lengths: list[int], limit: int) -> None:
    buckets = length_buckets(lengths, limit)
    assert sorted(i for bucket in buckets for i in bucket) == list(range(len(lengths)))
    for bucket in buckets:
        longest, shortest = lengths[bucket[0]], lengths[bucket[-1]]
        assert longest == max(lengths[i] for i in bucket)
        assert len(bucket) * longest <= limit
        assert shortest >= 0.75 * longest - 4


def test_a_fingerprint_names_the_weights() -> None:
    assert tiny_encoder().fingerprint == tiny_encoder().fingerprint
    others = {tiny_encoder(seed=1).fingerprint, tiny_encoder(dtype=torch.float64).fingerprint}
    model = copy.deepcopy(tiny_encoder().model)
    with torch.no_grad():
        model.get_submodule("encoder.layer.1.output.dense").weight[3, 5] += 1e-4
    tiny = tiny_encoder()
    others.add(TextEncoder("x", model, tiny.tokenizer, Pooling(), 128).fingerprint)
    assert len(others | {tiny.fingerprint}) == 4


def small(config: type[PretrainedConfig]) -> PretrainedConfig:
    """Position tables have room for LIMIT tokens after RoBERTa's and MPNet's two extra entries."""
    extra = 0 if config is BertConfig else 2
    return config(
        vocab_size=110, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=LIMIT + extra, pad_token_id=0 if not extra
        else 1,
    )  # fmt: skip


FAMILIES = {
    "bert": (BertModel, BertConfig, "attention.output.dense"),
    "roberta": (RobertaModel, RobertaConfig, "attention.output.dense"),
    "mpnet": (MPNetModel, MPNetConfig, "attention.attn.o"),
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, PreTrainedModel]:
    """A small random checkpoint on disk, as transformers writes it, and the model itself."""
    cls, config, _ = FAMILIES[request.param]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = cls(small(config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    model.save_pretrained(tmp_path)
    backend = copy.deepcopy(tiny_encoder().tokenizer.backend_tokenizer)
    pad = backend.id_to_token(model.config.pad_token_id)
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=pad, unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(tmp_path)  # fmt: skip
    return request.param, tmp_path, model


def test_a_family_loads_and_ignores_padding(
    family: tuple[str, Path, PreTrainedModel], texts: tuple[str, ...]
) -> None:
    name, folder, model = family
    encoder = TextEncoder.load(str(folder))
    assert encoder.id == folder.name
    assert encoder.pooling == Pooling("mean", False)
    assert encoder.max_tokens == LIMIT
    encoder.model.double()
    rows = encoder.tokenize([text[: LIMIT - 2] for text in texts])
    together = encoder.run(rows)
    for i, row in enumerate(rows):
        expected = model.double()(input_ids=torch.tensor([row])).last_hidden_state.mean(1)
        torch.testing.assert_close(together[i : i + 1], expected, rtol=1e-8, atol=1e-8)
    longest = encoder.tokenize(["x" * 300], truncate=True)
    assert len(longest[0]) == LIMIT
    assert encoder.run(longest).isfinite().all()
    residual = [s for s in encoder.sites.values() if s.residual]
    assert {s.name for s in residual} == {
        f"encoder.layer.{i}.{part}"
        for i in range(2)
        for part in (FAMILIES[name][2], "output.dense")
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_checkpoints_of_other_types_load_in_float32(
    family: tuple[str, Path, PreTrainedModel], texts: tuple[str, ...], dtype: torch.dtype
) -> None:
    _, folder, model = family
    model.to(dtype).save_pretrained(folder)
    encoder = TextEncoder.load(str(folder))
    assert {p.dtype for p in encoder.model.parameters()} == {torch.float32}
    model.float()
    [row] = encoder.tokenize([texts[0]])
    expected = model(input_ids=torch.tensor([row])).last_hidden_state.mean(1)
    torch.testing.assert_close(encoder.run([row]), expected, rtol=1e-5, atol=1e-5)
    assert encoder.features([texts[0]]).dtype == torch.float32


def test_a_family_takes_experts_of_both_kinds(
    family: tuple[str, Path, PreTrainedModel], texts: tuple[str, ...]
) -> None:
    _, folder, model = family
    encoder = TextEncoder.load(str(folder))
    encoder.model.double()
    rows = encoder.tokenize([text[: LIMIT - 2] for text in texts])
    config = peft.LoraConfig(r=3, target_modules="all-linear", init_lora_weights=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        adapted = peft.get_peft_model(copy.deepcopy(model), config).double().eval()
    tensors = {n: t.detach() for n, t in peft.get_peft_model_state_dict(adapted).items()}
    fitted = KINDS["lora"].fit(
        Adapter({"peft_type": "LORA", "lora_alpha": config.lora_alpha,
                 "target_modules": "all-linear"}, tensors),
        encoder.sites, "e",
    )  # fmt: skip
    expert = HostExpert.of(fitted.expert, fitted.scales, {}).materialise(torch.float64, "cpu")
    mix = build_mix([RowMix.of({"e": 1.0})] * len(rows), [stack_experts([expert])])
    twin = TextEncoder("t", adapted.get_base_model(), encoder.tokenizer, encoder.pooling, LIMIT)
    torch.testing.assert_close(encoder.run(rows, mix), twin.run(rows), **EXACT)
    bottleneck = KINDS["bottleneck"]
    targets = bottleneck.target_sites(encoder.sites.values())
    fresh = bottleneck.initial(targets, rank=4, generator=torch.Generator().manual_seed(0))
    sites = {s: {p: t.double() for p, t in ts.items()} for s, ts in fresh.items()}
    adapter = ExpertWeights("b", "bottleneck", bottleneck.group(sites), sites)
    mix = build_mix([RowMix.of({"b": 1.0})] * len(rows), [stack_experts([adapter])])
    assert not torch.equal(encoder.run(rows, mix), encoder.run(rows))


def test_what_cannot_be_loaded_says_so(
    family: tuple[str, Path, PreTrainedModel], tmp_path: Path
) -> None:
    _, folder, _ = family
    with pytest.raises(BackboneError, match="Cannot load backbone"):
        TextEncoder.load(str(tmp_path / "nothing"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BackboneError, match="Cannot load backbone"):
        TextEncoder.load(str(folder))
    weights.unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="Cannot load backbone"):
        TextEncoder.load(str(folder))


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    for name in (str(tmp_path / "nothing"), "nothing"):
        with pytest.raises(BackboneError, match="there is no such folder"):
            open_backbone(name)


def test_poolings_and_heads_that_are_not_computed_are_refused(
    family: tuple[str, Path, PreTrainedModel],
) -> None:
    _, folder, _ = family
    whole = SentenceTransformer(str(folder), device="cpu")
    whole.append(modules.Dense(16, 8))
    whole.save(str(folder / "dense"))
    with pytest.raises(BackboneError, match="Transformer, Pooling, Dense"):
        TextEncoder.load(str(folder / "dense"))
    del whole[2]
    whole[1] = modules.Pooling(16, pooling_mode="max")
    whole.save(str(folder / "max"))
    with pytest.raises(BackboneError, match="'max'"):
        TextEncoder.load(str(folder / "max"))


def test_the_demo_backbone_is_sentence_transformers_own(texts: tuple[str, ...]) -> None:
    try:
        path = demo_path()
    except BackboneError as error:
        pytest.skip(error.message)
    ours = open_backbone("demo")
    theirs = SentenceTransformer(path, device="cpu").encode(list(texts), convert_to_tensor=True)
    torch.testing.assert_close(ours.embed(texts), theirs, rtol=0, atol=1e-5)
    assert ours.id == "all-MiniLM-L6-v2"
    assert ours.max_tokens == 256
    assert len(ours.sites) == 37
