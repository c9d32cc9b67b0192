"""What experts say of themselves, as one embedder sees it: made from their manifests' texts.

An expert brings the vectors of the embedder it was fitted by. For any other embedder they are made
from the texts, once, and kept below the library under that embedder's fingerprint, by the texts'
own digest. Nothing of an expert's folder changes, so servers with different embedders may share a
library, and a file that is there is right whatever version of whichever expert it was made for.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from experts.artefacts import Artefacts
from experts.atomic import atomic_write, clean_leftovers
from experts.embedder import Embedder
from experts.entries import Entry
from experts.errors import BadExpert, LibraryUnreachable
from experts.files import MAX_TENSOR_BYTES, read_tensors
from experts.manifest import Manifest

log = logging.getLogger("sailplane.routing")
FOLDER = ".embeddings"


def sentences_of(manifest: Manifest) -> tuple[str, ...]:
    """What says what an expert is for: its instructions, or else a title that somebody gave."""
    titled = manifest.title and manifest.title != manifest.id
    return manifest.instructions or ((manifest.title,) if titled else ())


def words_of(manifest: Manifest) -> list[str]:
    """Every known wording of every label, in order."""
    return [w.text for label in manifest.labels for w in label.known]


class Wordings:
    """The words of a library's experts as one embedder sees them.

    Args:
        embedder: in force. root: the library's folder.
    """

    def __init__(self, embedder: Embedder, root: Path) -> None:
        self.embedder = embedder
        self.folder = root / FOLDER / embedder.fingerprint[:16]
        self._writes = True
        if self.folder.is_dir():
            try:
                clean_leftovers(self.folder)
            except OSError:
                self._writes = False

    def of(self, manifest: Manifest, artefacts: Artefacts) -> Artefacts:
        """An expert's artefacts with words as the embedder sees them; the same where they are.

        What the expert had no vectors of, it has none of here. Prototypes of choices have no texts
        to be made from: they are left out until the expert is fitted by this embedder.
        """
        if artefacts.embedder == self.embedder.fingerprint:
            return artefacts
        sentences, words = _texts(manifest, artefacts)
        vector_ND = self._vectors([*sentences, *words])
        return replace(
            artefacts,
            embedder=self.embedder.fingerprint,
            instructions=vector_ND[: len(sentences)] if sentences else None,
            choices=vector_ND[len(sentences) :] if words else None,
        )

    def missing(self, entries: Iterable[Entry]) -> list[Entry]:
        """The experts whose words this embedder has still to see."""
        return [entry for entry in entries if not self._is_there(entry)]

    def prepare(self, entry: Entry) -> None:
        """Have an expert's words ready; one that is damaged is for its reader to report."""
        try:
            self.of(entry.manifest, entry.read_artefacts())
        except BadExpert:
            return

    def _is_there(self, entry: Entry) -> bool:
        try:
            artefacts = entry.read_artefacts()
        except BadExpert:
            return True
        sentences, words = _texts(entry.manifest, artefacts)
        if artefacts.embedder == self.embedder.fingerprint or not (sentences or words):
            return True
        return self._path([*sentences, *words]).exists()

    def _vectors(self, texts: Sequence[str]) -> Tensor:
        """Vectors (N, W) of an expert's texts, from disk or made now."""
        if not texts:
            return torch.zeros(0, self.embedder.width)
        path = self._path(texts)
        if (found := self._read(path, len(texts))) is not None:
            return found
        vector_ND = self.embedder.embed(texts).float().cpu()
        self._write(path, vector_ND)
        return vector_ND

    def _read(self, path: Path, count: int) -> Tensor | None:
        """What a file holds; None where it is not there, or not what it should be."""
        if not path.exists():
            return None
        try:
            found = read_tensors(path, MAX_TENSOR_BYTES).tensors.get("vectors")
        except BadExpert:
            return None
        fits = found is not None and found.shape == (count, self.embedder.width)
        return found.float() if found is not None and fits and found.isfinite().all() else None

    def _write(self, path: Path, vector_ND: Tensor) -> None:
        """Keep vectors; a library that cannot be written to has them in memory alone."""
        if not self._writes:
            return
        try:
            data = safetensors.torch.save({"vectors": vector_ND.half().contiguous()})
            atomic_write(path, data)
        except (OSError, LibraryUnreachable) as error:
            self._writes = False
            log.warning("vectors of embedder %s are not kept: %s", self.embedder.id, error)

    def _path(self, texts: Sequence[str]) -> Path:
        digest = hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()
        return self.folder / f"{digest[:32]}.safetensors"


def _texts(manifest: Manifest, artefacts: Artefacts) -> tuple[Sequence[str], Sequence[str]]:
    """The sentences and words that an expert has vectors of."""
    sentences = sentences_of(manifest) if artefacts.instructions is not None else ()
    return sentences, words_of(manifest) if artefacts.choices is not None else ()
