"""A library's routing constants on disk: `calibration.json`, and the tensors it names.

The tensors stand in a file named by its content, so a reader sees the constants and the tensors of
one calibration, whenever a writer is killed. What the constants mean is `routers.calibration`'s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from experts.errors import CorruptExpert
from experts.files import MAX_TENSOR_BYTES, atomic_write, parse_tensors, read_bytes

CALIBRATION = "calibration.json"
NAME = "calibration-{}.safetensors"


def write_constants(
    root: Path,
    constants: Mapping[str, object],
    tensors: Mapping[str, Tensor] | None,
    before: Mapping[str, object] | None,
) -> dict[str, object]:
    """Write constants, and tensors when there are new ones; returns what was stored.

    Args:
        before: the constants in force, whose tensors stay when `tensors` is None.
    """
    name = (before or {}).get("tensors")
    if tensors is not None:
        blob = safetensors.torch.save({n: t.contiguous() for n, t in tensors.items()})
        name = NAME.format(hashlib.sha256(blob).hexdigest())
        atomic_write(root / name, blob)
    stored = {**constants, "tensors": name}
    text = json.dumps(stored, indent=2, allow_nan=False) + "\n"
    atomic_write(root / CALIBRATION, text.encode())
    stored = json.loads(text)
    for stale in root.glob(NAME.format("*")):
        if stale.name != name:
            stale.unlink()
    return stored


def read_constant_tensors(root: Path, constants: Mapping[str, object] | None) -> dict[str, Tensor]:
    """The tensors that the constants name, in float32.

    Raises:
        CorruptExpert: the file is missing, damaged, or not the one that was written.
    """
    name = (constants or {}).get("tensors")
    if not name:
        return {}
    blob = read_bytes(root / Path(str(name)).name, MAX_TENSOR_BYTES)
    if NAME.format(hashlib.sha256(blob).hexdigest()) != name:
        raise CorruptExpert(f"{name} is not the file that calibration.json names.")
    file = parse_tensors(root / str(name), blob)
    return {n: t.float() for n, t in file.tensors.items()}
