"""One expert's folder: what stands in it, how it is checked, and how it is written.

A folder that PEFT itself can load, plus `expert.json` and `routing.safetensors`. Knows nothing of
the other experts of a library, nor of backbones.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from experts.artefacts import REQUEST_ARTEFACTS, Artefacts
from experts.errors import BadExpert, CorruptExpert, ExpertError
from experts.files import (
    MAX_JSON_BYTES,
    MAX_TENSOR_BYTES,
    atomic_folder,
    atomic_write,
    parse_tensors,
    read_bytes,
    refuse_pickles,
    sha256_of,
)
from experts.kinds import KINDS, group_text
from experts.manifest import ExpertId, Manifest, TaskCard
from experts.weights import ExpertWeights

MANIFEST = "expert.json"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
ROUTING = "routing.safetensors"
ID = TypeAdapter(ExpertId)
LIMITS = {CONFIG: MAX_JSON_BYTES, WEIGHTS: MAX_TENSOR_BYTES, ROUTING: MAX_TENSOR_BYTES}


@dataclass(frozen=True, eq=False)
class Entry:
    """One expert of a library, by its folder and what its manifest says."""

    path: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        """The expert's id."""
        return self.manifest.id

    @cached_property
    def artefacts(self) -> Artefacts:
        """The routing artefacts in float32; empty ones when the expert was never fitted.

        Raises:
            BadExpert: the file is damaged, or not the one that was listed.
        """
        if ROUTING not in self.manifest.files:
            return Artefacts(embedder="")
        return _artefacts(self.path / ROUTING, self.read(ROUTING))

    @property
    def routable(self) -> bool:
        """Whether a request router has anything to score it by."""
        return self.artefacts.instructions is not None or self.artefacts.centroids is not None

    def read(self, name: str) -> bytes:
        """A file of the folder, checked against the sha256 in the manifest.

        Raises:
            CorruptExpert: it is missing, too large, or other bytes than were listed.
        """
        data = read_bytes(self.path / name, LIMITS[name])
        if hashlib.sha256(data).hexdigest() != self.manifest.files.get(name):
            raise CorruptExpert(f"{name} is not the file that expert.json lists.", file=name)
        return data


def read_manifest(folder: Path) -> Manifest:
    """A folder's `expert.json`.

    Raises:
        CorruptExpert: it is missing or does not fit the form.
    """
    try:
        return Manifest.model_validate_json(read_bytes(folder / MANIFEST, MAX_JSON_BYTES))
    except ValidationError as error:
        raise CorruptExpert(f"{MANIFEST}: {first_error(error)}") from error


def read_entry(folder: Path) -> Entry:
    """A folder as an entry, with every file checked.

    Raises:
        BadExpert: something is wrong with it; the message says what.
    """
    if not (folder / WEIGHTS).exists():
        refuse_pickles(folder)
    if not (folder / MANIFEST).exists():
        raise BadExpert(
            f"It has no {MANIFEST}: move it out of the library and add it with "
            "`sailplane experts add`."
        )
    entry = Entry(folder, read_manifest(folder))
    _require_whole(entry)
    return entry


def problems(entry: Entry) -> list[str]:
    """Everything wrong with an entry's files now, one sentence each."""
    names = dict.fromkeys((CONFIG, WEIGHTS, *entry.manifest.files))
    if (entry.path / ROUTING).exists():
        names[ROUTING] = None
    return [fault for name in names if (fault := _fault(entry, name))]


def copy_adapter(source: Path, folder: Path, known: Manifest | None) -> Manifest | None:
    """Copy an adapter's files and nothing else into a folder that is being filled.

    Returns:
        `known`, the source's manifest if it has one, once the copies are seen to fit it.

    Raises:
        BadExpert: the files are missing, too large, pickled, or not those of the manifest.
    """
    if not (source / WEIGHTS).exists():
        refuse_pickles(source)
    for name, limit in LIMITS.items():
        # An artefact file without a manifest has no sha256 to be trusted by.
        if name in (CONFIG, WEIGHTS) or (known and (source / name).exists()):
            (folder / name).write_bytes(read_bytes(source / name, limit))
    if known:
        _require_whole(Entry(folder, known))
    return known


def write_expert(
    root: Path,
    manifest: Manifest,
    weights: ExpertWeights,
    artefacts: Artefacts | None = None,
    *,
    dtype: torch.dtype = torch.float16,
) -> Entry:
    """Write a whole expert folder under `root`, atomically, with tensors stored as `dtype`.

    An expert that is there already is replaced, and its version grows.

    Raises:
        CorruptExpert: a value is not finite, or does not fit `dtype`.
    """
    target = root / manifest.id
    adapter = KINDS[weights.kind].write(weights)
    manifest = manifest.model_copy(update={"group": group_text(weights)})
    if (target / MANIFEST).exists():
        version = max(manifest.version, read_manifest(target).version + 1)
        manifest = manifest.model_copy(update={"version": version})
    with atomic_folder(target) as folder:
        text = json.dumps(dict(adapter.config), indent=2)
        (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
        (folder / WEIGHTS).write_bytes(_packed(adapter.tensors, dtype, {"format": "pt"}))
        if artefacts is not None:
            _write_routing(folder, artefacts, dtype)
        sealed = seal(folder, manifest)
    return Entry(target, sealed)


def write_artefacts(
    entry: Entry,
    artefacts: Artefacts,
    *,
    card: TaskCard | None = None,
    dtype: torch.dtype = torch.float16,
) -> Entry:
    """Replace an expert's artefacts, and what its card says, atomically; its version grows.

    Raises:
        CorruptExpert: a value is not finite, or does not fit `dtype`.
    """
    with atomic_folder(entry.path) as folder:
        for path in entry.path.iterdir():
            if path.is_file() and path.name not in (ROUTING, MANIFEST):
                shutil.copyfile(path, folder / path.name)
        _write_routing(folder, artefacts, dtype)
        said = {n: getattr(card, n) for n in TaskCard.model_fields if n != "id"} if card else {}
        grown = entry.manifest.model_copy(update={**said, "version": entry.manifest.version + 1})
        sealed = seal(folder, grown)
    return Entry(entry.path, sealed)


def write_scores(entry: Entry, scores: Mapping[str, float]) -> Entry:
    """Add measured figures to an expert's manifest, atomically; its tensors stay as they are."""
    noted = entry.manifest.model_copy(update={"scores": {**entry.manifest.scores, **scores}})
    text = noted.model_dump_json(indent=2) + "\n"
    atomic_write(entry.path / MANIFEST, text.encode())
    return Entry(entry.path, noted)


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write `expert.json` last, with the sha256 of the files beside it; returns what it says."""
    files = {name: sha256_of(folder / name) for name in LIMITS if (folder / name).exists()}
    sealed = manifest.model_copy(update={"files": files})
    (folder / MANIFEST).write_text(sealed.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return sealed


def require_id(id: str) -> str:
    """`id`; raises BadExpert where it cannot be an expert's id, and so the name of its folder."""
    try:
        return ID.validate_python(id)
    except ValidationError as error:
        raise BadExpert(f"{id!r} cannot be an expert's id: {first_error(error)}.") from error


def first_error(error: ValidationError) -> str:
    """A validation error in a few words, without the value that caused it."""
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"


def _require_whole(entry: Entry) -> None:
    found = problems(entry)
    if found:
        raise CorruptExpert(" ".join(found), problems=found)


def _fault(entry: Entry, name: str) -> str | None:
    """What is wrong with one file of the folder, if anything is."""
    try:
        if name not in LIMITS:
            return f"{MANIFEST} lists {name!r}, which is no file of an expert."
        data = entry.read(name)
        if name == ROUTING:
            _artefacts(entry.path / ROUTING, data)
    except ExpertError as error:
        return error.message
    return None


def _artefacts(path: Path, data: bytes) -> Artefacts:
    file = parse_tensors(path, data)
    flat = {name: tensor.float() for name, tensor in file.tensors.items()}
    artefacts = Artefacts.from_tensors(str(file.metadata.get("embedder", "")), flat)
    _require_sound(artefacts)
    return artefacts


def _write_routing(folder: Path, artefacts: Artefacts, dtype: torch.dtype) -> None:
    metadata = {"format": "pt", "embedder": artefacts.embedder}
    (folder / ROUTING).write_bytes(_packed(artefacts.to_tensors(), dtype, metadata))


def _packed(tensors: Mapping[str, Tensor], dtype: torch.dtype, metadata: dict[str, str]) -> bytes:
    # Cloned, because safetensors refuses tensors that share memory.
    stored = {n: t.detach().to("cpu", dtype).contiguous().clone() for n, t in tensors.items()}
    odd = [n for n, t in stored.items() if not t.isfinite().all()]
    if odd:
        raise CorruptExpert(f"Not finite as {dtype}: {', '.join(odd[:5])}.", tensors=odd)
    return safetensors.torch.save(stored, metadata)


def _require_sound(artefacts: Artefacts) -> None:
    rows = {n: t for n in REQUEST_ARTEFACTS if (t := getattr(artefacts, n)) is not None}
    vectors = {
        f"{artefact}.{site}": vector
        for artefact, by_site in artefacts.vectors.items()
        for site, vector in by_site.items()
    }
    if any(t.ndim != 2 for t in rows.values()) or any(v.ndim != 1 for v in vectors.values()):
        raise CorruptExpert(f"{ROUTING}: artefacts have the wrong number of axes.")
    if len({t.shape[1] for t in rows.values()}) > 1:
        raise CorruptExpert(f"{ROUTING}: embeddings have different widths.")
    odd = [n for n, t in {**rows, **vectors}.items() if not t.isfinite().all()]
    if odd:
        raise CorruptExpert(f"{ROUTING} holds NaN or infinity: {', '.join(odd[:5])}.", tensors=odd)
