"""One expert's folder: what stands in it, how it is checked, and how it is written.

A folder that PEFT itself can load, plus `expert.json` and `routing.safetensors`. Knows nothing of
the other experts of a library, nor of backbones.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from experts.artefacts import ROWS, Artefacts
from experts.errors import BadExpert, CorruptExpert
from experts.files import (
    MAX_JSON_BYTES,
    MAX_TENSOR_BYTES,
    parse_tensors,
    read_bytes,
    refuse_pickles,
    size_of,
)
from experts.manifest import ExpertId, Manifest
from experts.packed import all_finite

MANIFEST = "expert.json"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
ROUTING = "routing.safetensors"
ID = TypeAdapter(ExpertId)
MOST_MEAN = 10.0
"""Features are a few unit vectors end to end: no mean of them is this long."""
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

    @property
    def ref(self) -> str:
        """`id@version`: names exactly these tensors."""
        return f"{self.id}@{self.manifest.version}"

    @cached_property
    def digest(self) -> str:
        """Equal for equal experts, in any process; what was noted of them aside."""
        noted = {"provenance", "scores"}
        said = self.manifest.model_dump_json(exclude=noted).encode()
        return hashlib.blake2b(said, digest_size=12).hexdigest()

    def same_tensors(self, other: Entry) -> bool:
        """Whether the other one is this version, file by file."""
        return (self.ref, self.manifest.files) == (other.ref, other.manifest.files)

    def read_artefacts(self) -> Artefacts:
        """The routing artefacts in float32; empty ones when the expert was never fitted.

        Read and checked anew each time: a library of thousands could not keep them all.

        Raises:
            BadExpert: the file is damaged, or not the one that was listed.
        """
        if ROUTING not in self.manifest.files:
            return Artefacts(embedder="")
        return _artefacts(self.path / ROUTING, self.read(ROUTING))

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
    """A folder as an entry, by its manifest: files must be there, in the sizes it lists.

    What they hold is checked when they are first read; `problems` reads all of them now.

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
    found = [fault for name in _named(entry) if (fault := _absence(entry, name))]
    if found:
        raise CorruptExpert(" ".join(found), problems=found)
    return entry


def problems(entry: Entry) -> list[str]:
    """Everything wrong with an entry's files now, one sentence each."""
    return [fault for name in _named(entry) if (fault := _fault(entry, name))]


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


def require_id(id: str, what: str = "an expert's id") -> str:
    """`id`; raises BadExpert where it cannot be an expert's id, and so the name of its folder."""
    try:
        return ID.validate_python(id)
    except ValidationError as error:
        raise BadExpert(f"{id!r} cannot be {what}: {first_error(error)}.") from error


def first_error(error: ValidationError) -> str:
    """A validation error in a few words, without the value that caused it."""
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"


def _require_whole(entry: Entry) -> None:
    found = problems(entry)
    if found:
        raise CorruptExpert(" ".join(found), problems=found)


def _named(entry: Entry) -> list[str]:
    """The files an expert must have, those its manifest lists, and artefacts that lie there."""
    names = dict.fromkeys((CONFIG, WEIGHTS, *entry.manifest.files))
    if (entry.path / ROUTING).exists():
        names[ROUTING] = None
    return list(names)


def _absence(entry: Entry, name: str) -> str | None:
    """What can be seen to be wrong with a file without reading it."""
    listed, path = entry.manifest.files, entry.path / name
    if name not in LIMITS:
        return f"{MANIFEST} lists {name!r}, which is no file of an expert."
    if name not in listed:
        return f"{name} is not the file that {MANIFEST} lists."
    try:
        size = size_of(path, LIMITS[name])
    except CorruptExpert as error:
        return error.message
    said = entry.manifest.sizes.get(name, size)
    return None if said == size else f"{name} has {size} bytes, and {MANIFEST} says {said}."


def _fault(entry: Entry, name: str) -> str | None:
    """What is wrong with one file of the folder, if anything is."""
    if fault := _absence(entry, name):
        return fault
    try:
        data = entry.read(name)
        if name == ROUTING:
            _artefacts(entry.path / ROUTING, data)
    except BadExpert as error:
        return error.message
    return None


def _artefacts(path: Path, data: bytes) -> Artefacts:
    file = parse_tensors(path, data)
    # Token vectors stay as they are stored: only whoever computes with them knows their type.
    flat = {
        name: tensor.float() if name in ROWS else tensor for name, tensor in file.tensors.items()
    }
    artefacts = Artefacts.from_tensors(str(file.metadata.get("embedder", "")), flat)
    _require_sound(artefacts)
    return artefacts


def _require_sound(artefacts: Artefacts) -> None:
    rows = {n: t for n in ROWS if (t := getattr(artefacts, n)) is not None}
    vectors = {
        f"{artefact}.{site}": vector
        for artefact, by_site in artefacts.vectors.items()
        for site, vector in by_site.items()
    }
    if any(t.ndim != 2 for t in rows.values()) or any(v.ndim != 1 for v in vectors.values()):
        raise CorruptExpert(f"{ROUTING}: artefacts have the wrong number of axes.")
    inputs = artefacts.inputs
    if inputs is not None and (not len(inputs) or float(inputs[0].norm()) > MOST_MEAN):
        raise CorruptExpert(f"{ROUTING}: inputs hold no mean of features.")
    for same in (("instructions", "choices"), ("centroids", "examples")):
        if len({rows[name].shape[1] for name in same if name in rows}) > 1:
            raise CorruptExpert(f"{ROUTING}: {' and '.join(same)} have different widths.")
    found = {**rows, **vectors}
    # One look at all of them: a library of thousands opens a second sooner.
    if not all_finite(torch.cat([t.flatten() for t in found.values()] or [torch.zeros(0)])):
        odd = [n for n, t in found.items() if not t.isfinite().all()]
        raise CorruptExpert(f"{ROUTING} holds NaN or infinity: {', '.join(odd[:5])}.", tensors=odd)
