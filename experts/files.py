"""Files that strangers wrote, read safely.

Every read is bounded and every fault is a `CorruptExpert` that names the file, not the path; what
is the machine's fault is told apart, since the file may be sound. Knows JSON and safetensors; knows
neither manifests nor kinds.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from experts.errors import BadExpert, CorruptExpert, ForbiddenSource, UnsupportedExpert
from experts.exhaustion import raise_if_exhausted

MAX_JSON_BYTES = 4 * 2**20
MAX_TENSOR_BYTES = 2**30
MAX_HEADER_BYTES = 16 * 2**20
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class TensorFile:
    """What a safetensors file holds."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def read_bytes(path: Path, limit: int) -> bytes:
    """A regular file of at most `limit` bytes that does not lead out of its folder.

    One that another process replaces meanwhile is read whole, as it was or as it is. The bytes are
    copied rather than mapped: a mapped file that shrinks kills the process.

    Raises:
        CorruptExpert: it is missing, too large, no plain file, or a symlink that leaves.
        SystemExhausted: it cannot be opened for now.
    """
    size_of(path, limit)
    try:
        with path.open("rb") as file:
            size = _bounded(path, os.fstat(file.fileno()), limit)  # the name may be another's now
            data = file.read(size + 1)
    except OSError as error:
        raise_if_exhausted(error)
        _corrupt(path, f"cannot be read ({error.strerror})")
    if len(data) != size:
        _corrupt(path, "changed while it was read")
    return data


def size_of(path: Path, limit: int) -> int:
    """Bytes of a file that `read_bytes` would read.

    Raises:
        CorruptExpert: as `read_bytes`.
    """
    try:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            folder = Path(os.path.realpath(path.parent))
            if not Path(os.path.realpath(path, strict=True)).is_relative_to(folder):
                _corrupt(path, "is a symlink that leaves its folder")
            found = path.stat()
    except OSError as error:
        raise_if_exhausted(error)
        _corrupt(path, f"cannot be read ({error.strerror})")
    return _bounded(path, found, limit)


def _bounded(path: Path, found: os.stat_result, limit: int) -> int:
    if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for ever
        _corrupt(path, "is not a plain file")
    if found.st_size > limit:
        _corrupt(path, f"has {found.st_size} bytes, and {limit} are allowed", limit=limit)
    return found.st_size


def parse_json(path: Path, data: bytes) -> dict[str, object]:
    """A JSON object. `path` only names the file in errors.

    Raises:
        CorruptExpert: it is anything else.
    """
    try:
        parsed = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        _corrupt(path, f"is not JSON ({error})")
    if not isinstance(parsed, dict):
        _corrupt(path, "is not a JSON object")
    return parsed


def parse_tensors(path: Path, data: bytes) -> TensorFile:
    """The tensors and metadata of a safetensors file. `path` only names the file in errors.

    Tensors come in the order of their names: sums over all of them have the same bits each time.

    Raises:
        CorruptExpert: its header and its bytes do not agree.
        UnsupportedExpert: it holds tensors that are not floating point.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(MAX_HEADER_BYTES, len(data) - 8):
        _corrupt(path, f"is truncated or no safetensors file (header of {size} bytes)")
    metadata = parse_json(path, data[8 : 8 + size]).get("__metadata__") or {}
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        _corrupt(path, f"is damaged ({error})")
    if not isinstance(metadata, dict):
        _corrupt(path, "has metadata that is no JSON object")
    odd = sorted({str(t.dtype) for t in tensors.values()} - {str(d) for d in FLOATS})
    if odd:
        raise UnsupportedExpert(f"{path.name} holds {', '.join(odd)}; only floats are served.")
    return TensorFile(dict(sorted(tensors.items())), metadata)  # the library's order is random


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> dict[str, object]:
    """A JSON object from a file of at most `limit` bytes; see `read_bytes`, `parse_json`."""
    return parse_json(path, read_bytes(path, limit))


def read_tensors(path: Path, limit: int = MAX_TENSOR_BYTES) -> TensorFile:
    """Tensors from a file of at most `limit` bytes; see `read_bytes`, `parse_tensors`."""
    return parse_tensors(path, read_bytes(path, limit))


def resolve_inside(source: Path, roots: Sequence[Path]) -> Path:
    """`source` with every symlink followed.

    Raises:
        ForbiddenSource: that lies in none of `roots`.
        BadExpert: it is no folder, or nothing that could be a path at all.
    """
    try:
        resolved = Path(source).resolve()
        inside = any(resolved.is_relative_to(Path(root).resolve()) for root in roots)
        there = resolved.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL byte, a loop of links
        raise BadExpert("The path cannot be one of a folder on this machine.") from error
    if not inside:
        raise ForbiddenSource(
            "The path is outside the folders that adapters may be loaded from."
            if roots
            else "Adapters may be loaded from no folder: none is allowed by --adapter-root."
        )
    if not there:
        raise BadExpert("There is no such folder.")
    return resolved


def refuse_pickles(folder: Path) -> None:
    """Raises UnsupportedExpert when a folder offers pickled weights, which run code when read."""
    names = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
    if names:
        raise UnsupportedExpert(
            f"{', '.join(names)}: pickled weights are never read, since reading them runs code. "
            "Where you trust the file, load it with PEFT and write it again with "
            "model.save_pretrained(folder, safe_serialization=True).",
            files=names,
        )


def sha256_of(path: Path) -> str:
    """A file's sha256 in hex.

    Raises:
        CorruptExpert: it cannot be read. SystemExhausted: not for now.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise_if_exhausted(error)
        _corrupt(path, f"cannot be read ({error.strerror})")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _corrupt(path: Path, reason: str, **details: object) -> NoReturn:
    raise CorruptExpert(f"{path.name} {reason}.", file=path.name, **details)
