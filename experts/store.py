"""A library's address in an object store: `index.json`, and `objects/<sha256>`, a file each.

Objects are written first and never written again, the index last: who reads it finds all that it
names. Any address that fsspec knows will do; which store that is, and its credentials, are fsspec's
business. Knows nothing of a library's folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from experts.entries import first_error
from experts.errors import MirrorError
from experts.manifest import ExpertId, Sha256

INDEX, OBJECTS = "index.json", "objects"
Reference = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}@[0-9]{1,9}$")]
Files = dict[Literal["expert.json", "adapter_config.json", "adapter_model.safetensors",
                     "routing.safetensors"], Sha256]  # fmt: skip
RootFile = Annotated[
    str, Field(pattern=r"^(aliases\.json|calibration\.json|calibration-[0-9a-f]{64}\.safetensors)$")
]


class Index(BaseModel):
    """All that a library consists of: name -> sha256, by expert, by kept version, of the whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    generation: str
    experts: dict[ExpertId, Files]
    versions: dict[Reference, Files] = {}
    files: dict[RootFile, Sha256] = {}

    @property
    def objects(self) -> set[str]:
        """The sha256 of every file."""
        folders = (*self.experts.values(), *self.versions.values())
        return {sha for files in (*folders, self.files) for sha in files.values()}


class Store:
    """The address of a library. Raises MirrorError for whatever goes wrong there."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url
        with self._told("opened"):
            self._fs, self._path = fsspec.core.url_to_fs(url)

    def index(self) -> bytes | None:
        """The index as it lies there; None where there is none."""
        with self._told("read"):
            try:
                return self._fs.cat_file(f"{self._path}/{INDEX}")
            except FileNotFoundError:
                return None

    def put_index(self, data: bytes) -> None:
        """Have another index be in force, in one step."""
        with self._told("written"):
            fresh = f"{self._path}/.{INDEX}.tmp"  # a store of plain files writes byte by byte
            self._fs.pipe_file(fresh, data)
            self._fs.mv(fresh, f"{self._path}/{INDEX}")

    def sizes(self) -> dict[str, int]:
        """The objects there are, and their sizes."""
        with self._told("listed"):
            self._fs.invalidate_cache()
            self._fs.makedirs(f"{self._path}/{OBJECTS}", exist_ok=True)
            found = self._fs.find(f"{self._path}/{OBJECTS}", detail=True)
            return {name.rpartition("/")[2]: each["size"] for name, each in found.items()}

    def get(self, sha: str) -> bytes:
        """An object, checked."""
        with self._told("read"):
            data = self._fs.cat_file(f"{self._path}/{OBJECTS}/{sha}")
        if hashlib.sha256(data).hexdigest() != sha:
            raise MirrorError(f"{self.url}: object {sha} is damaged; delete it and push again.")
        return data

    def put(self, sha: str, data: bytes) -> None:
        """Write an object."""
        with self._told("written"):
            self._fs.pipe_file(f"{self._path}/{OBJECTS}/{sha}", data)

    def delete(self, shas: Sequence[str]) -> None:
        """Delete objects."""
        with self._told("written"):
            for sha in shas:
                self._fs.rm_file(f"{self._path}/{OBJECTS}/{sha}")

    @contextmanager
    def _told(self, what: str) -> Generator[None]:
        """Every store has errors of its own; ours names the address."""
        try:
            yield
        except Exception as error:
            raise MirrorError(f"{self.url} cannot be {what} ({error}).") from error


def parse_index(data: bytes, url: str) -> Index:
    """An index, from what `Store.index` gave. Raises MirrorError where it is damaged."""
    try:
        return Index.model_validate_json(data)
    except ValidationError as error:
        raise MirrorError(f"{url}: {INDEX}: {first_error(error)}.") from error
