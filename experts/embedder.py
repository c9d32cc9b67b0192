"""The embedder: the model by which instructions and choices are compared, for routing alone.

The backbone is one too, and shares its weights and its passes. Any other sentence-transformers
model may stand in its place: what experts say of themselves and what requests ask for is then
embedded by that one, while inputs, answers and statements stay the backbone's.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from experts.backbones.base import Backbone, fingerprint, no_bars
from experts.backbones.demo import demo_path
from experts.backbones.text_encoder import TextEncoder, position_limit
from experts.backbones.tiny import tiny_encoder
from experts.errors import BackboneError

SHARED = "backbone"
"""The name of the embedder that is the backbone."""
AT_ONCE = 16  # texts a pass: nobody waits long for the model
ENDLESS = 2**31  # tokens that a model without a limit takes


class Embedder(Protocol):
    """What embeds words for routing.

    Attributes:
        id: its name for people. fingerprint: whose vectors can be compared. width: of its vectors.
        max_tokens: the longest text it reads.
    """

    id: str
    fingerprint: str
    width: int
    max_tokens: int

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Vectors (B, W) of texts, without gradients; what is too long is cut."""
        ...

    def count(self, text: str) -> int:
        """Tokens of a text, special ones included."""
        ...


class SentenceEmbedder:
    """A sentence-transformers model of whatever modules, beside the backbone."""

    def __init__(self, id: str, model: SentenceTransformer) -> None:
        self.id = id
        self.model = model.eval().requires_grad_(False)
        self.identity = _identity(model)
        said = json.dumps(self.identity, sort_keys=True)
        self.fingerprint = hashlib.sha256(said.encode()).hexdigest()
        self.width: int = model.get_embedding_dimension() or 0
        limit = model.get_max_seq_length()
        self.max_tokens = min(int(limit), ENDLESS) if limit and limit < ENDLESS else ENDLESS
        self._one_pass = threading.Lock()  # its tokenizer is no good for two threads at once

    @classmethod
    def load(cls, source: str, device: str = "cpu") -> SentenceEmbedder:
        """Load from a local folder or a hub id, in float32; safetensors only, no remote code.

        Raises:
            BackboneError: it is not there, is damaged, or is no sentence-transformers model.
        """
        exact = {"use_safetensors": True, "dtype": torch.float32}
        try:
            with no_bars():
                model = SentenceTransformer(source, device=device, model_kwargs=exact)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise BackboneError(f"Cannot load embedder {source!r}: {error}") from error
        return cls(source.rstrip("/").rsplit("/", 1)[-1], model)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """See `Embedder.embed`; unit vectors."""
        parts: list[Tensor] = []
        for start in range(0, len(texts), AT_ONCE):
            with self._one_pass:
                found = self.model.encode(
                    list(texts[start : start + AT_ONCE]), convert_to_tensor=True,
                    normalize_embeddings=True, show_progress_bar=False,
                )  # fmt: skip
            parts.append(found.float())
        return torch.cat(parts) if parts else torch.zeros(0, self.width)

    def count(self, text: str) -> int:
        """See `Embedder.count`; 0 where its tokenizer does not say."""
        tokenizer: Any = self.model.tokenizer
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            return 0
        with self._one_pass:
            return len(tokenizer(text, truncation=False, verbose=False)["input_ids"])  # pyright: ignore[reportArgumentType]

    def equals(self, backbone: Backbone) -> bool:
        """Whether the backbone gives these vectors: weights, tokens and pooling agree."""
        names = [type(m).__name__ for m in self.model]
        plain = names[:2] == ["Transformer", "Pooling"] and names[2:] in ([], ["Normalize"])
        if not plain or not isinstance(backbone, TextEncoder):
            return False
        transformer: Any = self.model[0]
        pooling: Any = self.model[1]
        return (
            backbone.pooling.normalize
            and backbone.pooling.mode == pooling.pooling_mode
            and backbone.max_tokens == min(self.max_tokens, position_limit(backbone.model))
            and not self.identity["prompt"]
            and _tokenizer_text(backbone.tokenizer) == self.identity["tokenizer"]
            and backbone.fingerprint == fingerprint(transformer.auto_model)
        )


def open_embedder(name: str, backbone: Backbone, *, backbone_name: str = "") -> Embedder:
    """The embedder that `name` stands for; the backbone itself wherever the two are equal.

    Args:
        name: 'backbone', 'demo', 'tiny-random', or a folder or hub id. backbone_name: what the
            backbone was opened by, so that the same name needs no second look.

    Raises:
        BackboneError: it cannot be loaded.
    """
    if name in (SHARED, backbone_name):
        return backbone
    if name == "tiny-random":
        tiny = tiny_encoder()
        return backbone if tiny.fingerprint == backbone.fingerprint else tiny
    source = demo_path() if name == "demo" else name
    found = SentenceEmbedder.load(source, str(backbone.device))
    return backbone if found.equals(backbone) else found


def _identity(model: SentenceTransformer) -> dict[str, object]:
    """All that its vectors depend on."""
    modules = [[type(m).__name__, getattr(m, "get_config_dict", dict)()] for m in model]
    name = model.default_prompt_name
    return {
        "weights": fingerprint(model),
        "tokenizer": _tokenizer_text(model.tokenizer),
        "modules": json.loads(json.dumps(modules, default=lambda o: type(o).__name__)),
        "max_tokens": str(model.get_max_seq_length()),
        "prompt": (model.prompts or {}).get(name, "") if name else "",
        "width": model.get_embedding_dimension(),
    }


def _tokenizer_text(tokenizer: object) -> str:
    """A tokenizer as sha256, without what passes set on it (truncation and padding)."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if hasattr(backend, "to_str"):
        said = json.loads(cast("Any", backend).to_str())
        text = json.dumps({k: v for k, v in said.items() if k not in ("truncation", "padding")})
    elif hasattr(tokenizer, "get_vocab"):
        text = json.dumps(cast("Any", tokenizer).get_vocab(), sort_keys=True)
    else:
        text = type(tokenizer).__name__
    return hashlib.sha256(text.encode()).hexdigest()
