"""The file of keys: read, written, and read again when somebody changed it.

A file that cannot be read any more leaves the keys in force as they are: a slip of an editor must
neither open the server nor lock everybody out. To revoke all keys, write a file without any.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from experts.atomic import atomic_write, locked, replace_file
from experts.errors import LibraryUnreachable
from server.access.keys import Key, Keyring
from server.errors import BadKeyFile

SECONDS = 1.0
"""Between two looks at the file."""

log = logging.getLogger("sailplane.access")


class KeyList(BaseModel):
    """What the file holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[Key, ...] = ()

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        for what in ("id", "name"):
            said = [getattr(key, what) for key in self.keys]
            if twice := {value for value in said if said.count(value) > 1}:
                raise ValueError(f"two keys have the {what} {min(twice)!r}")
        return self


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys in a file.

    Raises:
        BadKeyFile: it cannot be read, or does not say keys; the message says why.
    """
    try:
        return KeyList.model_validate_json(path.read_bytes()).keys
    except OSError as error:
        raise BadKeyFile(f"{path}: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BadKeyFile(f"{path}: {where}: {first['msg']}") from None


def write_keys(path: Path, keys: Sequence[Key]) -> None:
    """Write a file of keys, in one step.

    Raises:
        ValidationError: two of them have one name. OSError: it cannot be written.
    """
    atomic_write(path, _as_json(keys))


def change_keys(path: Path, change: Callable[[tuple[Key, ...]], Sequence[Key]]) -> None:
    """Write what `change` makes of the keys that are there; nobody else writes in between.

    Raises:
        BadKeyFile: it is there, and says no keys, or cannot be written. ValidationError: two keys
            have one name. The file is as before then, and where `change` raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with locked(path.parent):
            there = read_keys(path) if path.exists() else ()
            replace_file(path, _as_json(change(there)))
    except LibraryUnreachable as error:  # what a folder of ours is called that cannot be written
        raise BadKeyFile(f"{path}: cannot be written ({error.__cause__})") from error


def _as_json(keys: Sequence[Key]) -> bytes:
    text = KeyList(keys=tuple(keys)).model_dump_json(indent=2, exclude_none=True)
    return text.encode() + b"\n"


class KeyStore:
    """The keys in force: those of a file, as it was when it could last be read.

    Raises:
        BadKeyFile: on making one, where the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._signature = self._sign()
        self._trouble = ""  # why it cannot be read, once told
        self.ring = Keyring(read_keys(path))

    def look(self) -> None:
        """Read the file again if it has changed, or could not be read when last looked at."""
        signature = self._sign()
        if signature == self._signature and not self._trouble:
            return
        try:
            self.ring = Keyring(read_keys(self.path))
        except BadKeyFile as error:
            if str(error) != self._trouble:
                log.error("the keys could not be read again, those of before hold: %s", error)
            self._trouble = str(error)
        else:
            log.info("read %d keys", len(self.ring.keys))
            self._signature, self._trouble = signature, ""

    def _sign(self) -> tuple[int, int, int] | None:
        """What changes with the file; None where there is none."""
        try:
            told = self.path.stat()
        except OSError:
            return None
        return told.st_mtime_ns, told.st_size, told.st_ino


@asynccontextmanager
async def watching_keys(store: KeyStore | None) -> AsyncGenerator[None]:
    """Look at the file of keys again and again inside the context."""
    task = asyncio.create_task(_watch(store)) if store else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.wait([task])


async def _watch(store: KeyStore) -> None:
    while True:
        await asyncio.sleep(SECONDS)
        try:
            await asyncio.to_thread(store.look)  # a file may lie on a disk that answers late
        except Exception:
            log.exception("the keys could not be looked at")
