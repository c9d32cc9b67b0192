"""Backbone `text-encoder`: a BERT-, RoBERTa- or MPNet-like sentence encoder, frozen.

Loads any sentence-transformers model (pooling and length limit are read from it) or a bare encoder
checkpoint (mean pooling). Knows nothing of questions and choices.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from experts.backbones.base import Backbone, fingerprint, masked_mean, no_bars
from experts.backbones.packed import pack_linears
from experts.errors import BackboneError
from experts.kinds import Site

# Attention output and feed-forward output, as BERT, RoBERTa and MPNet name them.
RESIDUAL = ("attention.output.dense", "attention.attn.o", "output.dense")


@dataclass(frozen=True)
class Pooling:
    """How token states become one vector."""

    mode: str = "mean"
    normalize: bool = True


class TextEncoder(Backbone):
    """A frozen encoder with sites; see `Backbone`."""

    def __init__(
        self, id: str, model: nn.Module, tokenizer: object, pooling: Pooling, max_tokens: int
    ) -> None:
        self.pooling = pooling
        super().__init__(
            id, model, tokenizer, sites=linear_sites(model), max_tokens=max_tokens,
            fingerprint=fingerprint(model),
        )  # fmt: skip

    @classmethod
    def load(cls, source: str, id: str | None = None, device: str = "cpu") -> TextEncoder:
        """Load from a local folder or a hub id, in float32; safetensors only, no remote code.

        Raises:
            BackboneError: it is not there, is damaged, or is not an encoder with mean or cls
                pooling and safetensors weights.
        """
        try:
            # A checkpoint in half precision would bring its type along, and routing needs float32.
            exact = {"use_safetensors": True, "dtype": torch.float32}
            with no_bars():
                loaded = SentenceTransformer(source, device=device, model_kwargs=exact)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise BackboneError(f"Cannot load backbone {source!r}: {error}") from error
        names = [type(m).__name__ for m in loaded]
        if names[:2] != ["Transformer", "Pooling"] or names[2:] not in ([], ["Normalize"]):
            raise BackboneError(
                f"{source!r} has the modules {', '.join(names)}; "
                "served are Transformer, Pooling and, where there is one, Normalize."
            )
        model, pooling = loaded[0].auto_model, loaded[1]
        assert isinstance(model, nn.Module)
        pack_linears(model)
        return cls(
            id or source.rstrip("/").rsplit("/", 1)[-1],
            model,
            loaded.tokenizer,
            Pooling(_mode_name(pooling.pooling_mode), "Normalize" in names),
            min(int(loaded.max_seq_length or 512), position_limit(model)),
        )

    def _pool(self, states_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        if self.pooling.mode == "cls":
            pooled_BD = states_BTD[:, 0]
        else:
            pooled_BD = masked_mean(states_BTD, mask_BT)
        return F.normalize(pooled_BD, dim=-1) if self.pooling.normalize else pooled_BD


def linear_sites(model: nn.Module) -> dict[str, Site]:
    """Every linear layer as a site; the pooler's is marked as not reaching the output."""
    return {
        name: Site(
            name,
            module.in_features,
            module.out_features,
            reaches_output=not name.startswith("pooler"),
            residual=name.endswith(RESIDUAL),
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }


def position_limit(model: nn.Module) -> int:
    """Tokens that the position table has room for.

    RoBERTa and MPNet count positions from one past the padding index, so their tables of 514 take
    512 tokens; neither their config nor their tokenizer says so.
    """
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    if not isinstance(table, nn.Embedding):
        return model.config.max_position_embeddings  # type: ignore[union-attr,return-value]
    return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)


def _mode_name(mode: object) -> str:
    if mode not in ("mean", "cls"):
        raise BackboneError(f"Pooling {mode!r} is not supported; mean and cls are.")
    return str(mode)
