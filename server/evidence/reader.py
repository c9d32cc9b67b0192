"""Reads a routing log: its files in order, its lines one by one, and feedback joined to answers.

A line that is torn, or that no server of this version wrote, is skipped and counted. Computes no
figure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from sys import intern

from routers.calibration import NO_EXPERT
from server.evidence.record import AnyLine, FeedbackLine, RoutedLine, Sees, parse_line


@dataclass(frozen=True, slots=True)
class Row:
    """One sample, slim: what figures are made of.

    Attributes:
        experts: id and weight, best first. right: whether the answer was right, None where nobody
            has said so.
    """

    time: float
    router: str
    sees: Sees
    experts: tuple[tuple[str, float], ...] = ()
    confidence: float | None = None
    fallback: str | None = None
    replaced: tuple[str, ...] = ()
    narrowed: bool = False
    library: str = ""
    calibration: str | None = None
    latency_ms: float = 0.0
    tokens: int = 0
    probability: float | None = None
    right: bool | None = None

    @property
    def first(self) -> str:
        """The expert with the most weight, or `NO_EXPERT`."""
        return self.experts[0][0] if self.experts else NO_EXPERT


@dataclass(frozen=True)
class FeedbackCounts:
    """What became of the feedback.

    Attributes:
        lines: in all. joined: answers that it judges. unmatched: questions it names that are not
            in the log. unanswered: questions that were only routed, or refused.
    """

    lines: int = 0
    joined: int = 0
    unmatched: int = 0
    unanswered: int = 0


@dataclass(frozen=True)
class Joined:
    """A log with its feedback in place. `skipped` lines of its `files` could not be read."""

    rows: list[Row]
    feedback: FeedbackCounts
    files: int = 1
    skipped: int = 0


@dataclass
class LogFiles:
    """A log's lines, oldest first.

    Attributes:
        files: how many there are, and skipped: lines of them that could not be read, once they
            have been gone through.
    """

    path: Path
    files: int = 0
    skipped: int = field(default=0)

    def __iter__(self) -> Iterator[AnyLine]:
        """Every line that can be read.

        Raises:
            OSError: there is no such file.
        """
        self.skipped = 0
        with ExitStack() as stack:
            # All are opened before one is read: a server that rotates them meanwhile loses nothing.
            opened = [stack.enter_context(p.open("rb")) for p in rotated(self.path)]
            self.files = len(opened)
            for file in opened:
                for text in file:
                    try:
                        yield parse_line(text)
                    except ValueError:
                        self.skipped += bool(text.strip())


def rotated(path: Path) -> list[Path]:
    """A log's files, oldest first: ..., `path.2`, `path.1`, `path`."""
    numbered = re.compile(re.escape(path.name) + r"\.([1-9]\d*)")
    found = {int(m[1]): p for p in path.parent.glob("*") if (m := numbered.fullmatch(p.name))}
    return [*(found[n] for n in sorted(found, reverse=True)), path]


def read_log(path: Path) -> Joined:
    """A log from its files.

    Raises:
        OSError: there is no such file.
    """
    lines = LogFiles(path)
    joined = join(lines)
    return replace(joined, files=lines.files, skipped=lines.skipped)


Key = tuple[str, int]


def join(lines: Iterable[AnyLine]) -> Joined:
    """Rows with what feedback says of them, in the order of their lines.

    The last word on a question counts. Where two answers have one request id and place, it belongs
    to the later one.
    """
    rows: list[Row] = []
    asked: dict[Key, tuple[int, int | None, tuple[str, ...]]] = {}
    said: dict[Key, FeedbackLine] = {}
    count = 0
    for line in lines:
        key = (line.request_id, line.question)
        if isinstance(line, FeedbackLine):
            said[key] = line
            count += 1
        else:
            asked[key] = (len(rows), line.answer.index if line.answer else None, line.values)
            rows.append(row_of(line))
    unmatched = unanswered = 0
    for key, feedback in said.items():
        if key not in asked:
            unmatched += 1
            continue
        place, answer, values = asked[key]
        if answer is None:
            unanswered += 1
        else:
            rows[place] = replace(rows[place], right=is_right(feedback, answer, values))
    joined = len(said) - unmatched - unanswered
    return Joined(rows, FeedbackCounts(count, joined, unmatched, unanswered))


def is_right(feedback: FeedbackLine, answer: int, values: tuple[str, ...]) -> bool:
    """Whether the option at `answer` is the one that is right.

    An expected option that was not offered makes the answer wrong, whichever it is.
    """
    if feedback.correct is not None:
        return feedback.correct
    if isinstance(feedback.expected, str):
        return values[answer : answer + 1] == (feedback.expected,)
    return feedback.expected == answer


def row_of(line: RoutedLine) -> Row:
    """What figures need of a line; ids and versions are shared between rows."""
    return Row(
        time=line.time,
        router=intern(line.router),
        sees=line.sees,
        experts=tuple((intern(e.id), e.weight) for e in line.selection.experts),
        confidence=line.confidence,
        fallback=line.fallback and intern(line.fallback),
        replaced=line.replaced,
        narrowed=line.narrowed,
        library=intern(line.library),
        calibration=line.calibration and intern(line.calibration),
        latency_ms=line.latency_ms,
        tokens=line.tokens,
        probability=line.answer.probability if line.answer else None,
    )
