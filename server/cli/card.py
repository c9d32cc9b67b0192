"""`sailplane card`: write the README of a library from what its manifests say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from server.cli.common import busy, fail, notes
from server.cli.options import with_settings
from server.settings import CONFIG_FILE, Origins

if TYPE_CHECKING:
    from experts.library import Library
    from experts.manifest import Manifest

CHOSEN = {
    "bare": "bare_choices",
    "expert": "expert_choices",
    "bare, reworded": "bare_reworded",
    "expert, reworded": "expert_reworded",
}
WRITTEN = {"bare": "bare_written", "expert": "expert_written"}
"""Columns of the table, and the scores in them: of experts that choose, and of those that write."""
ABOUT_CHOSEN = "with the choices as given, and *reworded* (label wordings never seen in training or fitting, shuffled, one foreign label added)"  # noqa: E501
ABOUT_WRITTEN = "texts that greedy decoding writes exactly"
AGAIN_CHOSEN = "`make library DATA=DIR` trains, fits, calibrates and measures it all again.\n"
AGAIN_WRITTEN = "`sailplane fit --calibrate`, `evaluate --record` and `card` made the rest.\n"
HEAD = """# {name}

{experts} for the backbone `{backbone}` (fingerprint `{fingerprint}`). Written by `sailplane card`; do not edit.

Each folder is an adapter that PEFT loads as it is, with `expert.json` (what it is, where its data came from, sha256 of its files) and `routing.safetensors` (what routers read of it).{beside} No text of a data set is in it: instructions, wordings and statements are our own, label names are the tasks'. Some licences allow research only, or ask for the same terms; an expert's licence is its data's to decide.

## The experts

Accuracy in percent on the task's test file: the bare backbone and the expert, forced by id; {about}.

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
    measured = {name for m in manifests for name in m.scores}
    written = bool(measured) and measured <= {*WRITTEN.values()}
    columns = WRITTEN if written else CHOSEN
    backbone = manifests[0].backbone
    count = len(manifests)
    head = HEAD.format(
        name=library.root.name, experts=f"{count} expert{'s' * (count != 1)}", backbone=backbone.id,
        fingerprint=backbone.fingerprint[:12], beside=_beside(library.root, backbone.id),
        about=ABOUT_WRITTEN if written else ABOUT_CHOSEN,
    )  # fmt: skip
    rows = [
        [m.id, m.title, *(_percent(m.scores.get(name)) for name in columns.values())]
        for m in manifests
    ]
    means = [
        _percent(_mean([m.scores[name] for m in manifests if name in m.scores]))
        for name in columns.values()
    ]
    return (
        head
        + _table(["expert", "what it does", *columns], [*rows, ["**mean**", "", *means]])
        + "\n## Data\n\n"
        + _table(["expert", "source", "licence of the data"], [_source(m) for m in manifests])
        + "\n## Recipe\n\n"
        + _recipes(manifests)
        + (AGAIN_WRITTEN if written else AGAIN_CHOSEN)
    )


def _beside(root: Path, backbone: str) -> str:
    """What else lies in the library's folder."""
    told = f" The backbone lies beside them, in `{backbone}`." if (root / backbone).is_dir() else ""
    settings = root / CONFIG_FILE.name
    if settings.is_file():
        told += f" `sailplane serve --config {settings}` serves it; `--config` fits every command."
    return told


def _source(manifest: Manifest) -> list[str]:
    told = manifest.provenance
    at = f" @ {str(told['commit'])[:10]}" if told.get("commit") else ""
    return [manifest.id, f"{told.get('source', '')}{at}", str(told.get("licence", ""))]


def _recipes(manifests: list[Manifest]) -> str:
    """Each recipe once, with the experts that it is of where there are several."""
    from experts.training.recipe import Recipe

    of: dict[str, list[str]] = {}
    for m in manifests:
        of.setdefault(str(m.provenance.get("recipe", "")), []).append(m.id)
    ours = any(map(Recipe.read, of))
    aside = "15% of each train file is set aside and never trained on" if ours else ""
    if len(of) == 1:
        told = f"The same for every expert{'; ' * ours}{aside}."
        return f"{told}\n\n```json\n{next(iter(of))}\n```\n\n"
    blocks = [f"{', '.join(ids)}:\n\n```json\n{recipe}\n```\n\n" for recipe, ids in of.items()]
    return (f"{aside.capitalize()}.\n\n" if ours else "") + "".join(blocks)


def _table(head: list[str], rows: list[list[str]]) -> str:
    return _rows([head]) + "|---" * len(head) + "|\n" + _rows(rows)


def _rows(rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
