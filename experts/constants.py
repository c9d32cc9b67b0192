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

from experts.atomic import locked, replace_file
from experts.errors import CorruptExpert, StaleConstants
from experts.files import MAX_TENSOR_BYTES, parse_tensors, read_bytes, read_json

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
        before: the constants that these grew from; their tensors stay when `tensors` is None.

    Raises:
        StaleConstants: `tensors` is None, and others than `before` lie there.
    """
    name = (before or {}).get("tensors")
    blob = None
    if tensors is not None:
        blob = safetensors.torch.save({n: t.contiguous() for n, t in tensors.items()})
        name = NAME.format(hashlib.sha256(blob).hexdigest())
    text = json.dumps({**constants, "tensors": name}, indent=2, allow_nan=False) + "\n"
    root.mkdir(parents=True, exist_ok=True)
    with locked(root):
        if blob is not None:
            replace_file(root / str(name), blob)
        elif read_constants(root) != before:
            raise StaleConstants("Another process has changed the library's constants meanwhile.")
        replace_file(root / CALIBRATION, text.encode())
        for stale in root.glob(NAME.format("*")):
            if stale.name != name:
                stale.unlink()
    return json.loads(text)


def read_constants(root: Path) -> Mapping[str, object] | None:
    """The constants as they lie there, if any.

    Raises:
        CorruptExpert: the file is damaged.
    """
    path = root / CALIBRATION
    return read_json(path) if path.exists() else None


def read_constants_and_tensors(
    root: Path,
) -> tuple[Mapping[str, object] | None, dict[str, Tensor]]:
    """The constants and the tensors that they name, of one calibration.

    Another process that calibrates the library meanwhile deletes the tensors of the constants that
    were read: then both are read anew.

    Raises:
        CorruptExpert: a file is damaged or missing.
    """
    constants = read_constants(root)
    while True:
        try:
            return constants, read_constant_tensors(root, constants)
        except CorruptExpert:
            former, constants = constants, read_constants(root)
            if constants == former:
                raise


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
