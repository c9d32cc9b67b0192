"""A language model's checkpoint on disk: its fingerprint, what is wrong with it, how it is opened.

Only safetensors is read. Knows no model in memory.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import BitsAndBytesConfig
from transformers.utils.hub import cached_file

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16,
          "float16": torch.float16}  # fmt: skip


def checkpoint_fingerprint(source: str) -> str:
    """sha256 over the names, types, shapes and bytes of a checkpoint's tensors, in order of name.

    It is of the files, so that the type a server computes in changes no fingerprint.
    """
    names: dict[str, str] = {}
    index = cached_file(source, INDEX, _raise_exceptions_for_missing_entries=False)
    told = json.loads(Path(index).read_text("utf-8"))["weight_map"] if index else {}
    for shard in sorted({*told.values()}) or [WHOLE]:
        path = cached_file(source, shard)
        assert path is not None
        with safe_open(path, "pt") as file:
            names |= dict.fromkeys(file.keys(), path)
    digest = hashlib.sha256()
    for name in sorted(names):
        with safe_open(names[name], "pt") as file:
            tensor: Tensor = file.get_tensor(name)
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def only_pickled(source: str) -> str | None:
    """What is wrong with a checkpoint whose weights are there, but pickled."""

    def found(name: str) -> bool:
        with suppress(OSError):  # a hub that does not answer: the error itself says so
            return bool(cached_file(source, name, _raise_exceptions_for_missing_entries=False))
        return False

    if any(map(found, (WHOLE, INDEX))) or not any(map(found, PICKLED)):
        return None
    return (
        f"it has only {PICKLED[0]}; pickled weights are never read, since reading them runs code. "
        "Save them with transformers' save_pretrained, which writes safetensors."
    )


def quantized(bits: str | None, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """How to quantise; 4 bits as adapters are trained over (NF4, Dettmers et al. 2023)."""
    if bits is None:
        return None
    if find_spec("bitsandbytes") is None:
        raise ImportError(
            f"quantization={bits!r} needs bitsandbytes: pip install 'sailplane[quantization]'."
        )
    return BitsAndBytesConfig(
        load_in_8bit=bits == "8bit", load_in_4bit=bits == "4bit", bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
    )  # fmt: skip
