"""`sailplane card`: write the README of a library from what its manifests say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.cli.common import busy, fail, notes
from server.cli.options import with_settings
from server.settings import Origins

if TYPE_CHECKING:
    from experts.library import Library

COLUMNS = ("bare_choices", "expert_choices", "bare_reworded", "expert_reworded")
HEAD = """# {name}

{count} experts for the backbone `{backbone}` (fingerprint `{fingerprint}`). Written by `sailplane card`; do not edit.

Each folder is an adapter that PEFT loads as it is, with `expert.json` (what it is, where its data came from, sha256 of its files) and `routing.safetensors` (what routers read of it). No text of a data set is in it: instructions, wordings and statements are our own, label names are the tasks'. Some licences allow research only, or ask for the same terms; an expert's licence is its data's to decide.

## The experts

Accuracy in percent on the task's test file: the bare backbone and the expert, forced by id; with the choices as given, and *reworded* (label wordings never seen in training or fitting, shuffled, one foreign label added).

| expert | what it does | bare | expert | bare, reworded | expert, reworded |
|---|---|---|---|---|---|
"""  # noqa: E501 - Markdown paragraphs are one line


@with_settings("library")
def card(origins: Origins) -> None:
    """Write README.md into the library: its experts, licences, recipe and measured accuracy."""
    from experts.library import Library  # imports torch: not before --help

    with busy(f"Reading library {origins.settings.library}") as told:
        library = Library.open(origins.settings.library, progress=told)
    if not library.entries:
        raise fail(f"{library.root}: there are no experts to write about")
    path = library.root / "README.md"
    path.write_text(_text(library), "utf-8")
    notes.print(f"Wrote {path}")


def _text(library: Library) -> str:
    manifests = [entry.manifest for entry in library.entries.values()]
    first = manifests[0]
    head = HEAD.format(
        name=library.root.name, count=len(manifests), backbone=first.backbone.id,
        fingerprint=first.backbone.fingerprint[:12],
    )  # fmt: skip
    rows = [
        [m.id, m.title, *(_percent(m.scores.get(column)) for column in COLUMNS)] for m in manifests
    ]
    means = [_percent(_mean([m.scores[c] for m in manifests if c in m.scores])) for c in COLUMNS]
    sources = [
        [m.id, f"{m.provenance.get('source', '')} @ {str(m.provenance.get('commit', ''))[:10]}",
         str(m.provenance.get("licence", ""))]
        for m in manifests
    ]  # fmt: skip
    return (
        head
        + _rows([*rows, ["**mean**", "", *means]])
        + "\n## Data\n\n| expert | source | licence of the data |\n|---|---|---|\n"
        + _rows(sources)
        + "\n## Recipe\n\nThe same for every expert; 15% of each train file is set aside and never "
        + "trained on.\n\n```json\n"
        + f"{first.provenance.get('recipe', '')}\n```\n\n"
        + "`make library DATA=DIR` trains, fits, calibrates and measures it all again.\n"
    )


def _rows(rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
