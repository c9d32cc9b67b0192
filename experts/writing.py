"""Write an expert's folder: whole, or its scores anew; always atomically.

Knows the form of one folder and that former versions are kept beside it; nothing else of the
library it stands in, nor of backbones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from experts.artefacts import Artefacts
from experts.atomic import atomic_folder, atomic_write
from experts.entries import CONFIG, LIMITS, MANIFEST, ROUTING, WEIGHTS, Entry
from experts.errors import CorruptExpert
from experts.files import sha256_of
from experts.kinds import KINDS, group_text
from experts.manifest import Manifest
from experts.versions import highest, keep, link_or_copy, sound_entry
from experts.weights import ExpertWeights


def write_expert(
    root: Path,
    manifest: Manifest,
    weights: ExpertWeights,
    artefacts: Artefacts | None = None,
    *,
    dtype: torch.dtype = torch.float16,
) -> Entry:
    """Write a whole expert folder under `root`, atomically, with tensors stored as `dtype`.

    An expert that is there already is replaced: its version grows, and the former one is kept.

    Raises:
        CorruptExpert: a value is not finite, or does not fit `dtype`.
    """
    target = root / manifest.id
    adapter = KINDS[weights.kind].write(weights)
    manifest = manifest.model_copy(update={"group": group_text(weights)})
    with atomic_folder(target) as folder:
        version = max(manifest.version, highest(root, manifest.id) + 1)
        text = json.dumps(dict(adapter.config), indent=2)
        (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
        (folder / WEIGHTS).write_bytes(_packed(adapter.tensors, dtype, {"format": "pt"}))
        if artefacts is not None:
            put_artefacts(folder, artefacts, dtype)
        sealed = seal(folder, manifest.model_copy(update={"version": version}))
        if former := sound_entry(target):
            keep(root, former)
    return Entry(target, sealed)


def refill(
    folder: Path, entry: Entry, manifest: Manifest, artefacts: Artefacts,
    dtype: torch.dtype = torch.float16,
) -> Manifest:  # fmt: skip
    """Fill an empty folder with an expert's files, but other artefacts; what its manifest says.

    Raises:
        CorruptExpert: a value is not finite, or does not fit `dtype`.
    """
    for path in entry.path.iterdir():
        if path.is_file() and path.name not in (ROUTING, MANIFEST):
            link_or_copy(path, folder / path.name)
    put_artefacts(folder, artefacts, dtype)
    return seal(folder, manifest)


def write_scores(entry: Entry, scores: Mapping[str, float]) -> Entry:
    """Add measured figures to an expert's manifest, atomically; its tensors stay as they are."""
    noted = entry.manifest.model_copy(update={"scores": {**entry.manifest.scores, **scores}})
    text = noted.model_dump_json(indent=2) + "\n"
    atomic_write(entry.path / MANIFEST, text.encode())
    return Entry(entry.path, noted)


def put_artefacts(folder: Path, artefacts: Artefacts, dtype: torch.dtype = torch.float16) -> None:
    """Write artefacts into a folder that is being filled; `seal` it afterwards.

    Raises:
        CorruptExpert: a value is not finite, or does not fit `dtype`.
    """
    # One entry: safetensors writes several in any order, and equal artefacts would differ as files.
    metadata = {"embedder": artefacts.embedder}
    (folder / ROUTING).write_bytes(_packed(artefacts.to_tensors(), dtype, metadata))


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write `expert.json` last, with the sha256 of the files beside it; returns what it says."""
    files = {name: sha256_of(folder / name) for name in LIMITS if (folder / name).exists()}
    sizes = {name: (folder / name).stat().st_size for name in files}
    sealed = manifest.model_copy(update={"files": files, "sizes": sizes})
    (folder / MANIFEST).write_text(sealed.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return sealed


def _packed(tensors: Mapping[str, Tensor], dtype: torch.dtype, metadata: dict[str, str]) -> bytes:
    # Cloned, because safetensors refuses tensors that share memory.
    stored = {n: t.detach().to("cpu", dtype).contiguous().clone() for n, t in tensors.items()}
    odd = [n for n, t in stored.items() if not t.isfinite().all()]
    if odd:
        raise CorruptExpert(f"Not finite as {dtype}: {', '.join(odd[:5])}.", tensors=odd)
    return safetensors.torch.save(stored, metadata)
