"""`sailplane experts`: look at a library's experts and change them, without a server.

Only `add` loads the backbone: an expert comes in when it loads on it, and not before.
"""

from __future__ import annotations

import errno
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from server.cli.common import BAD_USAGE, FAILED, busy, fail, notes, out, progress
from server.cli.options import with_settings
from server.settings import Origins, Settings

if TYPE_CHECKING:
    from experts.backbones import Backbone
    from experts.library import Library
    from experts.snapshot import Snapshot

app = typer.Typer(
    help="List, show, add, merge, name, remove and verify experts.", no_args_is_help=True
)

Id = Annotated[str, typer.Argument(help="The expert's id.")]
OPTIONAL = ("tags", "aliases")  # columns that most libraries leave empty
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", help="A tag, as callers are limited to; may be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list", epilog="Example: sailplane experts list --library library/minilm")
@with_settings("library")
def list_experts(origins: Origins, tag: Tags = None, as_json: Json = False) -> None:
    """List the experts of the library, and what cannot be served with the reason.

    With --tag: what a caller sees who is limited to these tags.
    """
    from experts.scope import Scope, require_tags

    require_tags(tag or ())
    seen = _open(origins.settings).snapshot.within(Scope(frozenset(tag) if tag else None))
    if as_json:
        experts = [e.manifest.model_dump(mode="json") for e in seen.entries.values()]
        told = {"experts": experts, "bad": dict(seen.bad), "aliases": dict(seen.aliases)}
        out.print_json(data=told)
        return
    out.print(_table(seen))
    for id, reason in seen.bad.items():
        notes.print(f"[red]{escape(id)}[/] cannot be served: {escape(reason)}", highlight=False)


@app.command(epilog="Example: sailplane experts show trec")
@with_settings("library")
def show(origins: Origins, id: Id) -> None:
    """Print what an expert says of itself, its versions, and which routing artefacts it has."""
    library = _open(origins.settings)
    entry = library.find(id)
    versions = [e.manifest.version for e in library.snapshot.versions(entry.id)]
    stored = entry.read_artefacts()
    artefacts = {n: list(t.shape) for n, t in stored.to_tensors().items() if "." not in n}
    token = {name: len(sites) for name, sites in stored.vectors.items()}
    said = entry.manifest.model_dump(mode="json", exclude_defaults=True)
    found = {"versions": versions, "aliases": library.snapshot.named.get(entry.id, {}),
             "artefacts": {**artefacts, "sites": token}}  # fmt: skip
    out.print_json(data={**said, **found})


@app.command(
    epilog="Example: sailplane experts add path/to/adapter --id reviews --label good --label bad"
)
@with_settings("library", "backbone", "embedder", "device", "dtype", "quantization")
def add(
    origins: Origins,
    source: Annotated[Path, typer.Argument(help="A folder that PEFT or Sailplane wrote.")],
    id: Annotated[str | None, typer.Option(help="Its id. Default: the folder's name.")] = None,
    title: Annotated[str | None, typer.Option(help="What it is for, in a few words.")] = None,
    instruction: Annotated[
        list[str] | None, typer.Option(help="What its task is, in one sentence; may be repeated.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="A label it answers with; may be repeated.")
    ] = None,
    tag: Tags = None,
    examples: Annotated[
        Path | None, typer.Option(help="A text file of inputs of its task, one a line.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of an expert of this id.")
    ] = False,
) -> None:
    """Copy an adapter into the library, if it loads on the backbone."""
    from experts.embedder import open_embedder  # imports torch: not before --help
    from experts.library import Library
    from experts.manifest import Label
    from routers.fitting.describe import describe

    settings = origins.settings
    with busy(f"Loading backbone {settings.backbone} and library {settings.library}") as told:
        backbone = _backbone_of(settings)
        embedder = open_embedder(settings.embedder, backbone, backbone_name=settings.backbone)
        library = Library.open(
            settings.library, fingerprint=backbone.fingerprint, backbone_id=backbone.id,
            progress=told,
        )  # fmt: skip
    entry = library.add(
        source,
        id,
        sites=backbone.sites,
        roots=(source,),
        title=title,
        instructions=instruction or (),
        labels=[Label(value=value) for value in label or ()],
        tags=tag or (),
        describe=partial(describe, backbone, embedder, examples=_lines(examples)),
        replace=replace,
    )
    routable = entry.read_artefacts().routable
    routed = "" if routable else "; no router will choose it without --instruction or --examples"
    notes.print(f"Added {escape(entry.ref)} ({entry.manifest.kind}){routed}.", highlight=False)


@app.command(epilog="Example: sailplane experts alias questions trec@1")
@with_settings("library")
def alias(
    origins: Origins,
    name: Annotated[str, typer.Argument(help="The other name.")],
    ref: Annotated[
        str | None, typer.Argument(help="An id, or id@version to stay with that one.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the name away.")] = False,
) -> None:
    """Have a name stand for an expert, or for one version of it."""
    if remove == (ref is not None):
        raise fail("Say what the alias stands for, or --remove, and not both.", BAD_USAGE)
    _open(origins.settings).set_alias(name, ref)
    told = f"{name} stands for {ref} now." if ref else f"Removed alias {name}."
    notes.print(escape(told), highlight=False)


@app.command(epilog="Example: sailplane experts rollback trec 2")
@with_settings("library")
def rollback(
    origins: Origins,
    id: Id,
    version: Annotated[int, typer.Argument(help="A version that is kept; `show` lists them.")],
) -> None:
    """Put a former version of an expert in the place of the current one, which is kept."""
    entry = _open(origins.settings).roll_back(id, version)
    notes.print(f"{escape(entry.id)} is version {version} again.", highlight=False)


@app.command(epilog="Example: sailplane experts remove trec --yes")
@with_settings("library")
def remove(
    origins: Origins,
    id: Id,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete an expert's folder."""
    library = _open(origins.settings)
    if id not in library.bad:
        library.get(id)
    if not yes:
        typer.confirm(f"Delete {library.root / id}?", abort=True, err=True)
    library.remove(id)
    notes.print(f"Removed {escape(id)}.", highlight=False)


@app.command(epilog="Example: sailplane experts verify")
@with_settings("library")
def verify(origins: Origins) -> None:
    """Check every file of every expert against its sha256; ends with 1 if something is wrong."""
    library = _open(origins.settings)
    with busy("Checking files"):
        found = library.verify()
    for id, problems in sorted(found.items()):
        out.print(f"{id}: {'; '.join(problems) or 'ok'}", markup=False, highlight=False)
    if any(found.values()):
        raise typer.Exit(FAILED)


@app.command(epilog="Example: sailplane experts embed --embedder path/to/model")
@with_settings("library", "backbone", "embedder", "device", "dtype", "quantization")
def embed(origins: Origins) -> None:
    """Have the embedder see what experts say of themselves, so that a server starts at once.

    Interrupted, it goes on where it was. No expert changes: a server with another embedder may go
    on serving the library.
    """
    from experts.embedder import open_embedder  # imports torch: not before --help
    from routers.fitting.wording import Wordings

    settings = origins.settings
    with busy(f"Loading embedder {settings.embedder}"):
        backbone = _backbone_of(settings)
        embedder = open_embedder(settings.embedder, backbone, backbone_name=settings.backbone)
    library = _open(settings)
    wordings = Wordings(embedder, library.root)
    entries = list(library.entries.values())
    todo = wordings.missing(entries)
    notes.print(f"{len(entries) - len(todo)} of {len(entries)} experts are embedded already.")
    for entry in progress(todo, "experts") if todo else ():
        wordings.prepare(entry)


def _backbone_of(settings: Settings) -> Backbone:
    """The backbone, as a server opens it."""
    from experts.backbones import open_backbone  # imports torch: not before --help

    return open_backbone(settings.backbone, settings.device, settings.dtype, settings.quantization)


def _table(seen: Snapshot) -> Table:
    """The experts, a row each; tags and aliases where any expert has some."""
    rows = {
        "id": [e.id for e in seen.entries.values()],
        "version": [str(e.manifest.version) for e in seen.entries.values()],
        "kind": [e.manifest.kind for e in seen.entries.values()],
        "title": [e.manifest.title for e in seen.entries.values()],
        "tags": [", ".join(e.manifest.tags) for e in seen.entries.values()],
        "aliases": [
            ", ".join(_told(*alias) for alias in seen.named.get(id, {}).items())
            for id in seen.entries
        ],
        "labels": [str(len(e.manifest.labels) or "") for e in seen.entries.values()],
        "licence of the data": [
            str(e.manifest.provenance.get("licence", "")) for e in seen.entries.values()
        ],
    }
    shown = {n: column for n, column in rows.items() if any(column) or n not in OPTIONAL}
    table = Table(*shown)
    for row in zip(*shown.values(), strict=True):
        table.add_row(*map(escape, row))
    return table


def _told(name: str, ref: str) -> str:
    """An alias beside its expert: what it stands for matters where that is one version."""
    return f"{name} (@{ref.rpartition('@')[2]})" if "@" in ref else name


def _lines(path: Path | None) -> list[str]:
    """The lines of a text file that say something."""
    return [line for line in path.read_text("utf-8").splitlines() if line.strip()] if path else []


def _open(settings: Settings) -> Library:
    """The library, read without a backbone; a folder that is not there is a mistake, not empty."""
    from experts.library import Library

    if not settings.library.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such library", str(settings.library))
    with busy(f"Reading library {settings.library}") as told:
        return Library.open(settings.library, progress=told)
