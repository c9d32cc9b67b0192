"""What a batch has to do: the lines of its input, less those its output answers already.

Lines are told apart by number and digest, which are the answer's `id`; so an answer never counts
for a line that was changed since, or for another file. Memory: 9 bytes a line, and about 150 more
while the input is read the first time.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from pydantic_core import from_json

from server.batch.lines import OK, Line, custom_id_of, read_line
from server.errors import BadLine, BatchFileError, RepeatedLine

ID = re.compile(r"batch_req_(\d{1,12})_([0-9a-f]{8})")
BEGINNING = b'{"id":"batch_req_'
BLANK = 1 << 32  # no digest of four bytes


@dataclass(frozen=True)
class Task:
    """A line to answer: a request, or why it is none."""

    id: str
    line: Line | BadLine


@dataclass
class Plan:
    """The lines of an input file.

    Attributes:
        source: the file. limit: bytes a line may have. digests: of each line, `BLANK` for an empty
            one. repeated: lines whose custom_id an earlier line has, with that line's number.
        done: per line, 1 once the output answers it. failed: codes of the answers that are errors.
    """

    source: Path
    limit: int
    digests: array[int] = field(default_factory=lambda: array("Q"))
    repeated: dict[int, int] = field(default_factory=dict[int, int])
    done: bytearray = field(default_factory=bytearray)
    failed: Counter[str] = field(default_factory=Counter[str])

    @property
    def total(self) -> int:
        """How many lines there are, empty ones apart."""
        return len(self.digests) - self.digests.count(BLANK)

    @property
    def answered(self) -> int:
        """How many of them the output answers."""
        return self.done.count(1)

    def tick_off(self, number: int, digest: int, of: str) -> None:
        """Take note that the output answers a line.

        Raises:
            BatchFileError: the input has no such line, or the output answers it twice.
        """
        start = f"name another output, or start over with --again ({of})"
        if not 0 < number <= len(self.digests):
            raise BatchFileError(f"The output answers line {number} of a longer input: {start}.")
        if self.digests[number - 1] != digest:
            raise BatchFileError(
                f"The output answers another line {number} than the input has. If that line was "
                f"changed, remove its answer from the output; else {start}."
            )
        if self.done[number - 1]:
            raise BatchFileError(f"The output answers line {number} twice: remove one ({of}).")
        self.done[number - 1] = 1

    def tasks(self) -> Iterator[Task]:
        """What is left to answer, in the input's order.

        Raises:
            BatchFileError: the input was changed since it was read first.
        """
        with self.source.open("rb") as file:
            for number, data in read_lines(file, self.limit):
                at, digest = number - 1, digest_of(data)
                if at >= len(self.digests) or self.digests[at] != digest:
                    raise BatchFileError(f"{self.source}: line {number} changed during the run.")
                if digest != BLANK and not self.done[at]:
                    yield Task(f"batch_req_{number}_{digest:08x}", self._read(number, data))

    def _read(self, number: int, data: bytes) -> Line | BadLine:
        try:
            line = read_line(number, data, self.limit)
        except BadLine as bad:
            return bad
        if number not in self.repeated:
            return line
        first = self.repeated[number]
        return RepeatedLine(f"Line {number} has the custom_id of line {first}.", line.custom_id)


def read_plan(source: Path, limit: int) -> Plan:
    """Read the input once, to know its lines and which of them repeat a custom_id.

    Args:
        limit: bytes a line may have.

    Raises:
        BatchFileError: it is no plain file. OSError: it cannot be read.
    """
    if source.exists() and not source.is_file():
        raise BatchFileError(f"{source}: expected a plain file, since it is read twice.")
    plan = Plan(source, limit)
    first: dict[bytes, int] = {}
    with source.open("rb") as file:
        for number, data in read_lines(file, limit):
            plan.digests.append(digest_of(data))
            if (named := custom_id_of(data)) is not None:
                key = blake2b(named.encode("utf-8", "surrogatepass"), digest_size=16).digest()
                if first.setdefault(key, number) != number:
                    plan.repeated[number] = first[key]
    plan.done = bytearray(len(plan.digests))
    return plan


def resume(plan: Plan, written: BinaryIO) -> int:
    """Tick off what an output answers.

    Returns:
        Where its complete lines end, in bytes; what follows is the line a killed run was writing.

    Raises:
        BatchFileError: it is no output of a batch, or that of another input.
    """
    end, name = 0, str(getattr(written, "name", "output"))
    for number, raw in enumerate(written, 1):
        of = f"{name}, line {number}"
        if not raw.endswith(b"\n"):
            _require_output(raw, of)
            break
        id, failed = _read_answer(raw, of)
        plan.tick_off(int(id[1]), int(id[2], 16), of)
        plan.failed.update([failed] if failed else [])
        end += len(raw)
    return end


def start_over(written: BinaryIO) -> int:
    """Forget what an output answers.

    Returns:
        Where to write from: its beginning.

    Raises:
        BatchFileError: it is no output of a batch, and not to be thrown away by mistake.
    """
    _require_output(written.read(len(BEGINNING)), str(getattr(written, "name", "output")))
    return 0


def read_lines(file: BinaryIO, limit: int) -> Iterator[tuple[int, bytes]]:
    """Every line with its number from 1; of one beyond `limit` bytes the first `limit + 1`."""
    number, data = 0, file.readline(limit + 2)
    while data:
        number += 1
        rest = data
        while len(rest) >= limit + 2 and not rest.endswith(b"\n"):
            rest = file.readline(limit + 2)
        yield number, data.rstrip(b"\r\n")[: limit + 1]
        data = file.readline(limit + 2)


def digest_of(data: bytes) -> int:
    """Four bytes that tell a line from what it was before a change; `BLANK` for an empty one."""
    if not data.strip():
        return BLANK
    return int.from_bytes(blake2b(data, digest_size=4).digest(), "big")


def _read_answer(raw: bytes, of: str) -> tuple[re.Match[str], str | None]:
    """The `id` of an answer, and its code where it is an error."""
    try:
        told = from_json(raw)
        id = ID.fullmatch(told["id"])
        response = told["response"]
        code = None if response["status_code"] == OK else response["body"]["error"]["code"]
    except (ValueError, TypeError, LookupError):
        id = code = None
    if id is None:
        raise BatchFileError(
            f"{of} is not an answer of `sailplane batch`: name another output, or remove that line."
        )
    return id, None if code is None else str(code)


def _require_output(raw: bytes, of: str) -> None:
    """What a file holds may be thrown away only if it begins as an answer does.

    Raises:
        BatchFileError: it does not.
    """
    if not (raw.startswith(BEGINNING) or BEGINNING.startswith(raw)):
        raise BatchFileError(f"{of} is not an answer of `sailplane batch`: name another output.")
