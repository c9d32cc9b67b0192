"""Experts as rows of a table, and what a search finds them by. Pure: JSON of the API in."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

MEGA = 2**20


def words_of(expert: Mapping[str, Any]) -> str:
    """What an expert is found by."""
    return " ".join(
        (expert["id"], expert["title"], expert["kind"], *expert["tags"], *expert["aliases"],
         licence_of(expert["provenance"]))
    ).lower()  # fmt: skip


def row_of(expert: Mapping[str, Any]) -> dict[str, Any]:
    """An expert as a row of the table."""
    use = expert["use"] or {}
    provenance = expert["provenance"]
    size = expert["bytes"]
    return {
        "id": expert["id"], "title": expert["title"], "kind": expert["kind"],
        "version": expert["version"], "state": expert["state"],
        "bytes": None if size is None else round(size / MEGA, 2),
        "tier": use.get("tier"), "times": use.get("times"), "last": ago(use.get("last")),
        "licence": licence_of(provenance),
    }  # fmt: skip


def licence_of(provenance: Mapping[str, Any]) -> str:
    """The licence of the data behind an expert, where it is told."""
    found = provenance.get("licence") or provenance.get("license") or ""
    return str(found)


def ago(moment: float | None, now: float | None = None) -> str:
    """How long ago something was, in a word."""
    if moment is None:
        return ""
    seconds = max(0.0, (time.time() if now is None else now) - moment)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "now" if seconds < 5 else f"{int(seconds)} s ago"
