"""Small random checkpoints of many architectures on disk, and adapters that PEFT made for them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    T5Config,
)

from experts.backbones import LanguageModel, open_backbone
from experts.backbones.tiny import tiny_causal, tiny_seq2seq
from experts.host import HostExpert
from experts.library import Library
from experts.loader import read_expert
from experts.tiers import Tiers
from server.engine.generation.loop import GenerationLoop

AUTO = {"causal": AutoModelForCausalLM, "seq2seq": AutoModelForSeq2SeqLM}
TASK = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM"}
TOKENIZER = {"causal": tiny_causal, "seq2seq": tiny_seq2seq}

TOKENS: Mapping[str, Any] = {
    "vocab_size": 104, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip
WIDE: Mapping[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, **TOKENS,
}  # fmt: skip
GROUPED: Mapping[str, Any] = {**WIDE, "intermediate_size": 128, "num_key_value_heads": 2}
# The window is shorter than the prompts, and both sorts of layers are there. Where embeddings are
# large and the head is tied to them, a random model only repeats its last token.
WINDOWED: Mapping[str, Any] = {
    **GROUPED, "head_dim": 16, "sliding_window": 6, "tie_word_embeddings": False,
    "layer_types": ["sliding_attention", "full_attention"],
}  # fmt: skip
T5: Mapping[str, Any] = {
    "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4,
    "decoder_start_token_id": 0, **TOKENS,
}  # fmt: skip
BART: Mapping[str, Any] = {
    "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128,
    "max_position_embeddings": 128, "decoder_start_token_id": 3, "forced_eos_token_id": None,
    "tie_word_embeddings": False, **TOKENS,
}  # fmt: skip
CAUSAL: Mapping[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**GROUPED),
    "gpt2": lambda: GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=128, **TOKENS),
    "qwen2": lambda: Qwen2Config(**GROUPED),
    "gemma2": lambda: Gemma2Config(**WINDOWED),
    "gemma3": lambda: Gemma3TextConfig(**WINDOWED),
    "opt": lambda: OPTConfig(ffn_dim=128, word_embed_proj_dim=64, **WIDE),
    "gpt_neox": lambda: GPTNeoXConfig(intermediate_size=128, **WIDE),
    "phi3": lambda: Phi3Config(**GROUPED),
}
SEQ2SEQ: Mapping[str, Callable[[], PreTrainedConfig]] = {
    "t5": lambda: T5Config(**T5),
    "gated t5": lambda: T5Config(
        **T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False, num_decoder_layers=1
    ),
    "bart": lambda: BartConfig(**BART),
}
ARCHITECTURES = {**CAUSAL, **SEQ2SEQ}


@dataclass(frozen=True)
class Checkpoint:
    """A model of transformers in a folder, and PEFT's adapters for it in folders of their own."""

    architecture: str
    folder: Path
    adapters: Mapping[str, Path]

    @property
    def family(self) -> str:
        """Of the backbone that opens it."""
        return "causal" if self.architecture in CAUSAL else "seq2seq"

    @property
    def forced(self) -> list[int]:
        """Tokens that every text begins with, whatever is asked."""
        return [TOKENS["bos_token_id"]] if self.architecture == "bart" else []

    def in_peft(self, name: str | None, dtype: torch.dtype = torch.float64, **options: Any) -> Any:
        """The model with one adapter, as PEFT loads it; the bare model for None."""
        model = AUTO[self.family].from_pretrained(self.folder, dtype=dtype, **options).eval()
        return model if name is None else peft.PeftModel.from_pretrained(model, self.adapters[name])

    def written(self, model: Any, prompt: Sequence[int], count: int) -> list[int]:
        """What transformers' own greedy `generate` writes, without the decoder's first token."""
        return self.generated(model, prompt, count)[0]

    def generated(
        self, model: Any, prompt: Sequence[int], count: int
    ) -> tuple[list[int], torch.Tensor]:
        """See `written`, with the logits (T, V) that each of the T tokens was chosen by."""
        out = model.generate(
            input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)).long(),
            max_new_tokens=count, do_sample=False, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        first = len(prompt) if self.family == "causal" else 1
        return out.sequences[0, first:].tolist(), torch.cat(out.logits)

    def logits(self, model: Any, prompt: Sequence[int], written: Sequence[int]) -> torch.Tensor:
        """Logits (T, V) before each of the T tokens written."""
        with torch.inference_mode():
            if self.family == "causal":
                ids = torch.tensor([[*prompt, *written]])
                return model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
            start = model.config.decoder_start_token_id
            decoder = torch.tensor([[start, *written[:-1]]])
            ids = torch.tensor([prompt])
            return model(input_ids=ids, decoder_input_ids=decoder, use_cache=False).logits[0]


def write_checkpoint(root: Path, architecture: str, ranks: Mapping[str, int]) -> Checkpoint:
    """Write a random model in float64, and for each name an adapter of this rank."""
    made = Checkpoint(architecture, root / "backbone", {name: root / name for name in ranks})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        _random(made).save_pretrained(made.folder)
        TOKENIZER[made.family]().tokenizer.save_pretrained(made.folder)
        for name, rank in ranks.items():
            _write_adapter(made, name, rank)
    return made


def _random(checkpoint: Checkpoint) -> Any:
    config = ARCHITECTURES[checkpoint.architecture]()
    model = AUTO[checkpoint.family].from_config(config, dtype=torch.float64)
    model.generation_config.forced_bos_token_id = next(iter(checkpoint.forced), None)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:  # the usual 0.02 would make every text look alike
                parameter.mul_(6)
            else:  # biases and norms that do something
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def _write_adapter(checkpoint: Checkpoint, name: str, rank: int) -> None:
    """LoRA on every linear layer but the head, as PEFT chooses and saves it."""
    task = TASK[checkpoint.family]
    config = peft.LoraConfig(r=rank, lora_alpha=4, target_modules="all-linear", task_type=task)
    model = peft.get_peft_model(checkpoint.in_peft(None), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(checkpoint.adapters[name])


@contextmanager
def served(
    checkpoint: Checkpoint, library: Path, dtype: str = "float64", quantization: str | None = None
) -> Generator[GenerationLoop]:
    """A loop over a checkpoint and its adapters, each added to a library as it is."""
    backbone = open_backbone(str(checkpoint.folder), dtype=dtype, quantization=quantization)
    assert isinstance(backbone, LanguageModel)
    held = Library.open(library, fingerprint=backbone.fingerprint)
    for name, folder in checkpoint.adapters.items():
        held.add(folder, name, sites=backbone.sites, roots=(folder,))

    def read(ref: str) -> HostExpert:
        return read_expert(held.find(ref), backbone.sites).named(ref, 1)

    tiers = Tiers(read, dtype=backbone.dtype, device=backbone.device, host_bytes=1 << 26,
                  device_bytes=1 << 26)  # fmt: skip
    yield GenerationLoop(backbone, tiers, kv_bytes=1 << 26, chunk_tokens=8)
    tiers.close()
