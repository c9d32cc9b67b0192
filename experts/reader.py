"""What readers use of a library: one immutable `Snapshot` at a time, free of locks.

`experts.library` builds the snapshots; nothing here changes a file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from experts.constants import read_constant_tensors, read_constants, read_constants_and_tensors
from experts.entries import Entry, problems
from experts.exhaustion import raise_if_unreachable
from experts.snapshot import Snapshot


class LibraryReader:
    """A library as its readers see it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._snapshot = Snapshot()
        self._looked = False
        self._tensors: tuple[object, Mapping[str, Tensor]] = (None, {})

    @property
    def reachable(self) -> bool:
        """Whether its folder is there and may be read."""
        return os.path.isdir(self.root) and os.access(self.root, os.R_OK | os.X_OK)

    @property
    def snapshot(self) -> Snapshot:
        """Entries, bad folders, calibration and generation, consistent with each other."""
        return self._snapshot

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The experts that can be served, by id."""
        return self._snapshot.entries

    @property
    def bad(self) -> Mapping[str, str]:
        """Folders that cannot be served, and why."""
        return self._snapshot.bad

    @property
    def calibration(self) -> Mapping[str, object] | None:
        """The library's routing constants, if they were ever fitted."""
        return self._snapshot.calibration

    @property
    def generation(self) -> str:
        """Names the current state; see `Snapshot.generation`."""
        return self._snapshot.generation

    def get(self, id: str) -> Entry:
        """The entry of an expert; see `Snapshot.get`."""
        return self._snapshot.get(id)

    def find(self, name: str) -> Entry:
        """The entry of `id` or `id@version`; see `Snapshot.find`."""
        return self._snapshot.find(name)

    def verify(self) -> dict[str, list[str]]:
        """Check every file again: id -> what is wrong, empty where nothing is."""
        found = {id: problems(entry) for id, entry in self.entries.items()}
        found |= {ref: problems(entry) for ref, entry in self._snapshot.kept.items()}
        return found | {name: [reason] for name, reason in self.bad.items()}

    def calibration_tensors(self) -> Mapping[str, Tensor]:
        """The tensors of the constants, in float32. Raises CorruptExpert as their file does.

        Read once: another process that calibrates the library deletes the file they came from.
        """
        constants = self.calibration
        name = (constants or {}).get("tensors")
        if self._tensors[0] != name:
            self._tensors = (name, read_constant_tensors(self.root, constants))
        return self._tensors[1]

    def _constants(self) -> Mapping[str, object] | None:
        """The constants as they lie there; new ones only together with the tensors they name."""
        try:
            constants = read_constants(self.root)
            if self._looked and constants != self.calibration:
                constants, tensors = read_constants_and_tensors(self.root)
                self._tensors = ((constants or {}).get("tensors"), tensors)
        except OSError as error:
            raise_if_unreachable(error)
            raise
        return constants
