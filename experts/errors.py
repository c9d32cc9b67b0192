"""Everything that can go wrong with experts, as one tree.

ExpertError
├── UnknownExpert          the caller named an expert the library lacks
├── UnknownAlias           the caller named an alias the library lacks
├── DuplicateExpert        the id is taken: choose another, or remove it first
├── AliasedExpert          aliases stand for it: remove them first
├── StaleConstants         others have changed the library's constants: begin again
├── MirrorError            a library's address fails, or what lies there: its operator must act
├── MirroredLibrary        the library is a copy: change the one it is a copy of
├── BadTags                tags without their form, or that this caller may not give
├── ForbiddenSource        the folder lies outside the roots an operator allowed
├── BadExpert              the expert's own files are at fault: its author must act
│   ├── UnsupportedExpert  a valid adapter of a sort that is not served
│   ├── MismatchedExpert   its tensors do not fit the backbone's sites
│   └── CorruptExpert      damaged, oversized or altered files
├── SystemExhausted        the machine is out of handles, memory or disk: its operator must act
├── LibraryUnreachable     the library's folder cannot be read or written: its operator must act
├── TaskFormatError        a training file cannot be read (`experts.training.data`)
├── MixError               experts that cannot act or be merged together (the caller's wish)
└── BackboneError          the backbone could not be loaded or used as asked
    ├── ChatError          these messages make no prompt: the caller must send others, or a prompt
    └── InputTooLong       the text has more tokens than the backbone takes

The server maps this tree to HTTP in one table; nothing here knows of status codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class ExpertError(Exception):
    """Root of the tree. `details` is JSON that may be shown to a client."""

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.details: Mapping[str, object] = details


class UnknownExpert(ExpertError):
    """No expert of that id is in the library."""


class DuplicateExpert(ExpertError):
    """An expert of that id is in the library already."""


class UnknownAlias(ExpertError):
    """No alias of that name is in the library."""


class AliasedExpert(ExpertError):
    """An expert that aliases stand for cannot go."""


class StaleConstants(ExpertError):
    """The library's constants are no longer those that a change began with."""


class MirrorError(ExpertError):
    """A library cannot be copied to or from an object store as things are."""


class MirroredLibrary(ExpertError):
    """A copy of a library elsewhere is changed there."""


class BadTags(ExpertError):
    """Tags that are none, or that this caller may not give."""


class ForbiddenSource(ExpertError):
    """The path is outside every folder that adapters may be loaded from."""


class BadExpert(ExpertError):
    """The expert's files cannot be served."""


class UnsupportedExpert(BadExpert):
    """A well-formed adapter that uses something Sailplane does not serve."""


class MismatchedExpert(BadExpert):
    """Tensors that match no site, or the wrong shape, or the wrong backbone."""

    def __init__(
        self, message: str, *, matched: Sequence[str] = (), unmatched: Sequence[str] = ()
    ) -> None:
        super().__init__(message, matched=list(matched), unmatched=list(unmatched))


class CorruptExpert(BadExpert):
    """Files that are missing, damaged, too large, or not what their sha256 says."""


class SystemExhausted(ExpertError):
    """A file could not be read or written for now; that says nothing of what is in it."""


class LibraryUnreachable(ExpertError):
    """The library's folder is gone, or this process may not read it or write to it."""


class MixError(ExpertError):
    """Weights, experts or merge rules that cannot act together."""


class BackboneError(ExpertError):
    """The backbone could not be loaded, or cannot do what was asked of it."""


class ChatError(BackboneError):
    """The tokenizer has no chat template, or its template refuses the messages."""


class InputTooLong(BackboneError):
    """A text has more tokens than the backbone takes."""

    def __init__(self, length: int, limit: int, part: str = "input") -> None:
        super().__init__(
            f"{part} has {length} tokens and the backbone takes {limit}; "
            "shorten it, or send routing.truncate = true.",
            part=part,
            length=length,
            limit=limit,
        )
