"""Files that strangers wrote, read safely; folders of our own, written atomically.

Every read is bounded and every fault is a `CorruptExpert` that names the file, not the path.
Knows JSON, safetensors and folders; knows neither manifests nor kinds.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from experts.errors import BadExpert, CorruptExpert, ForbiddenSource, UnsupportedExpert

MAX_JSON_BYTES = 4 * 2**20
MAX_TENSOR_BYTES = 2**30
MAX_HEADER_BYTES = 16 * 2**20
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# What a killed writer leaves: `.tmp` was never visible, `.old` was, and may have to come back.
LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<state>tmp|old)")


@dataclass(frozen=True)
class TensorFile:
    """What a safetensors file holds."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def read_bytes(path: Path, limit: int) -> bytes:
    """A regular file of at most `limit` bytes that does not lead out of its folder.

    The bytes are copied rather than mapped: a mapped file that shrinks kills the process.

    Raises:
        CorruptExpert: it is missing, too large, no plain file, or a symlink that leaves.
    """
    size = size_of(path, limit)
    try:
        with path.open("rb") as file:
            data = file.read(size + 1)
    except OSError as error:
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
        _corrupt(path, f"cannot be read ({error.strerror})")
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
    return TensorFile(tensors, metadata)


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
        raise ForbiddenSource("The path is outside the folders that adapters may be loaded from.")
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
        CorruptExpert: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        _corrupt(path, f"cannot be read ({error.strerror})")


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Only one writer of a folder at a time, in any thread or process; a killed one lets go."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def atomic_folder(target: Path) -> Generator[Path]:
    """Fill the folder this gives; on a clean exit it becomes `target`, otherwise nothing happens.

    A kill leaves the old folder or the new one, once `clean_leftovers` has run. Do not nest two
    of them in one parent folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.parent):
        fresh = _hidden(target, "tmp")
        fresh.mkdir()
        try:
            yield fresh
            for path in (*fresh.iterdir(), fresh):
                _fsync(path)
            _take_place(fresh, target)
        finally:
            _delete(fresh)


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file so that a reader or a kill sees the old bytes or the new ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        replace_file(path, data)


def replace_file(path: Path, data: bytes) -> None:
    """`atomic_write` for who holds the lock of its folder."""
    fresh = _hidden(path, "tmp")
    fresh.write_bytes(data)
    _fsync(fresh)
    fresh.replace(path)
    _fsync(path.parent)


def remove_folder(target: Path) -> bool:
    """Take a folder away in one step, then free its space; False when it was gone already."""
    try:
        with locked(target.parent):
            return take_away(target)
    except FileNotFoundError:
        return False


def take_away(target: Path) -> bool:
    """`remove_folder` for who holds the lock of the folder it stands in."""
    doomed = _hidden(target, "tmp")
    try:
        target.rename(doomed)
    except FileNotFoundError:
        return False
    _fsync(target.parent)
    _delete(doomed)
    return True


def clean_leftovers(folder: Path) -> None:
    """Undo or finish what killed writers left in `folder`, which the caller has `locked`."""
    for name in os.listdir(folder):
        if not (found := LEFTOVER.fullmatch(name)):
            continue
        path, target = folder / name, folder / found["name"]
        if found["state"] == "old" and not target.exists():
            path.rename(target)
        else:
            _delete(path)


def _take_place(fresh: Path, target: Path) -> None:
    old = _hidden(target, "old")
    replaces = os.path.lexists(target)
    if replaces:  # a full folder cannot be renamed over: step aside first
        target.rename(old)
    fresh.rename(target)
    _fsync(target.parent)
    if replaces:
        _delete(old)


def _hidden(target: Path, state: str) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.{state}")


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _corrupt(path: Path, reason: str, **details: object) -> NoReturn:
    raise CorruptExpert(f"{path.name} {reason}.", file=path.name, **details)
