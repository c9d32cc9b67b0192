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
    return {
        "id": expert["id"], "title": expert["title"], "kind": expert["kind"],
        "version": expert["version"], "state": expert["state"], "bytes": megabytes(expert),
        "tier": use.get("tier"), "times": use.get("times"), "last": use.get("last"),
        "scores": scores_of(expert), "licence": licence_of(expert["provenance"]),
    }  # fmt: skip


def facts_of(expert: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is known of an expert beside its words, as pairs to read."""
    use, fit, size = expert["use"], expert["fit"], megabytes(expert)
    kept = ", ".join(map(str, expert["versions"]))
    told: list[tuple[str, object]] = [
        ("name", expert["id"]), ("kind", expert["kind"]),
        ("version", f"{expert['version']} (kept: {kept})"),
        ("state", "routed" if expert["state"] == "routed" else "answers by name only"),
        ("token routing", "gates" if expert["gates"] else "no gates: keeps its weight"),
        ("size", None if size is None else f"{size} MB"),
        ("where", use and use["tier"]),
        ("used", use and _used(use)),
        ("fit", fit and f"{fit['state']} ({fit['done']} of {fit['total']}) {fit['message']}"),
        ("sites without effect", ", ".join(expert["without_effect"])),
        ("backbone", expert["backbone"]), ("aliases", ", ".join(expert["aliases"])),
        ("tags", ", ".join(expert["tags"])), ("licence", licence_of(expert["provenance"])),
        ("folder", expert["path"]),
    ]  # fmt: skip
    return [(what, str(told_)) for what, told_ in told if told_]


def _used(use: Mapping[str, Any]) -> str:
    return (
        f"{use['times']} times, last {ago(use['last'])}" if use["last"] else "not since the start"
    )


def megabytes(expert: Mapping[str, Any]) -> float | None:
    """The size of an expert's files, where it is known."""
    return None if expert["bytes"] is None else round(expert["bytes"] / MEGA, 2)


def scores_of(expert: Mapping[str, Any]) -> str:
    """The first of an expert's figures that are of itself, and not of the bare backbone."""
    own = {name: value for name, value in expert["scores"].items() if name.startswith("expert")}
    name, value = next(iter((own or expert["scores"]).items()), ("", None))
    return "" if value is None else f"{value:.3f} ({name})"


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
