"""Other names of a library's experts: `aliases.json`, and what may be a name and what it may mean.

An alias stands for an expert, whichever version is current, or for one version of it for good.
Reads and writes one file; the library holds the locks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import RootModel, ValidationError

from experts.atomic import replace_file
from experts.entries import first_error, require_id
from experts.errors import (
    AliasedExpert,
    BadExpert,
    CorruptExpert,
    DuplicateExpert,
    UnknownAlias,
    UnknownExpert,
)
from experts.exhaustion import raise_if_unreachable
from experts.files import read_json
from experts.manifest import ExpertId
from experts.scope import Scope, taken
from experts.snapshot import Snapshot
from experts.versions import parse_reference

ALIASES = "aliases.json"


class _Aliases(RootModel[dict[ExpertId, str]]):
    """The file: name -> `id` or `id@version`."""


def read_aliases(root: Path) -> dict[str, str]:
    """A library's aliases by name; none where there is no file.

    Raises:
        CorruptExpert: the file is damaged.
    """
    path = root / ALIASES
    if not path.exists():
        return {}
    try:
        return _Aliases.model_validate(read_json(path)).root
    except ValidationError as error:
        raise CorruptExpert(f"{ALIASES}: {first_error(error)}.") from error


def write_aliases(root: Path, aliases: Mapping[str, str]) -> dict[str, str]:
    """Store all aliases, atomically, under the lock of `root`; returns what was stored."""
    stored = dict(sorted(aliases.items()))
    replace_file(root / ALIASES, (json.dumps(stored, indent=2) + "\n").encode())
    return stored


def changed_aliases(
    seen: Snapshot, aliases: Mapping[str, str], name: str, ref: str | None
) -> dict[str, str]:
    """All aliases after one of them came to stand for `ref`, or went where that is None.

    Args:
        seen: the library as the caller sees it. aliases: all there are, its own or not.

    Raises:
        UnknownAlias: there is none to take away. UnknownExpert: nothing is called `ref`.
        BadExpert: the name has not the form of an id, or `ref` is itself an alias.
        DuplicateExpert: the name is of something that the caller doesn't see.
    """
    if ref is None:
        return _without(seen, aliases, name)
    require_id(name, "an alias")
    if ref in seen.aliases:
        raise BadExpert(f"{ref!r} is an alias; name what it stands for: {seen.aliases[ref]!r}.")
    if name in aliases and name not in seen.aliases:
        raise taken(name)
    entry = seen.find(ref)
    require_unreserved(name, entry.manifest.backbone.id)
    if not entry.path.exists():
        raise UnknownExpert(f"Another process has removed {ref!r}.")
    return {**aliases, name: ref}


def require_unreserved(name: str, backbone_id: str) -> None:
    """Raises DuplicateExpert where a name means something else wherever a model is named."""
    if name in ("auto", backbone_id):
        raise DuplicateExpert(f"{name!r} is a model name with another meaning; choose another.")


def require_no_alias(id: str, aliases: Mapping[str, str], seen: Snapshot) -> None:
    """Raises DuplicateExpert where a name that an expert is to have is an alias."""
    if id in seen.aliases:
        raise DuplicateExpert(
            f"{id!r} is an alias of {seen.aliases[id]!r}; choose another id, or remove the alias "
            "first."
        )
    if id in aliases:
        raise taken(id)


def require_removable(root: Path, now: Snapshot, id: str, scope: Scope) -> None:
    """Check that an expert may go, by what is known of the library in folder `root`.

    Raises:
        UnknownExpert: there is none. AliasedExpert: aliases stand for it, or for a version of it.
        LibraryUnreachable: the folder cannot be read.
    """
    try:
        aliases = read_aliases(root)
    except OSError as error:
        raise_if_unreachable(error)
        raise
    seen = now.renamed(aliases).within(scope)
    if id not in seen.bad:
        seen.get(id)
    naming = [name for name, ref in aliases.items() if parse_reference(ref)[0] == id]
    shown = [name for name in naming if name in seen.aliases or not seen.scope.limited]
    if naming:
        who = f"aliases stand for it: {', '.join(shown)}" if shown else "other names stand for it"
        raise AliasedExpert(
            f"Expert {id!r} cannot be removed while {who}. Remove them, or have them stand for "
            "another expert, first.",
            aliases=shown,
        )


def _without(seen: Snapshot, aliases: Mapping[str, str], name: str) -> dict[str, str]:
    if name not in seen.aliases:
        known = ", ".join(seen.aliases) or "none"
        raise UnknownAlias(f"There is no alias {name!r}; there are: {known}.")
    return {known: ref for known, ref in aliases.items() if known != name}
