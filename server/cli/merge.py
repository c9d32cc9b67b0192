"""`sailplane experts merge`: one expert made of several, by a rule, into the library."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from server.cli.common import BAD_USAGE, busy, fail, notes, out
from server.cli.options import with_settings
from server.settings import Origins

if TYPE_CHECKING:
    from experts.merging import Likeness

NewId = Annotated[str, typer.Argument(help="The id of the expert that is made.")]
Of = Annotated[str, typer.Option(help="The experts it is made of.", metavar="A,B,...")]
Rule = Annotated[str, typer.Option(help="average, task_arithmetic, ties or lorahub.")]
Weights = Annotated[
    str | None, typer.Option(help="A weight per expert, in order.", metavar="W,W,...")
]
Param = Annotated[
    list[str] | None,
    typer.Option(help="A number that the rule takes; may be repeated.", metavar="NAME=NUMBER"),
]
Rank = Annotated[int | None, typer.Option(min=1, help="Truncate the result to this rank.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="A tag of it; may be repeated.")]
Replace = Annotated[bool, typer.Option("--replace", help="Take the place of an expert.")]


@with_settings("library", "backbone")
def merge(
    origins: Origins,
    id: NewId,
    of: Of,
    rule: Rule = "average",
    weights: Weights = None,
    param: Param = None,
    rank: Rank = None,
    title: Annotated[str | None, typer.Option(help="What it is for, in a few words.")] = None,
    tag: Tags = None,
    replace: Replace = False,
) -> None:
    """Make one expert of several and add it to the library.

    No router chooses it: it answers by name. Shows how each expert lies to what was made of it.
    """
    from experts.backbones import open_backbone  # imports torch: not before --help
    from experts.entries import require_id
    from experts.library import Library
    from experts.loader import load_expert
    from experts.merging import apply, likenesses, make_plan, validate
    from experts.merging.adding import add_merged

    require_id(id)
    names = [name.strip() for name in of.split(",") if name.strip()]
    plan = make_plan(rule, names, weights=_numbers(weights), parameters=_named(param), rank=rank)
    settings = origins.settings
    if not settings.library.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such library", str(settings.library))
    with busy(f"Loading backbone {settings.backbone} and library {settings.library}") as told:
        backbone = open_backbone(settings.backbone)
        library = Library.open(
            settings.library, fingerprint=backbone.fingerprint, backbone_id=backbone.id,
            progress=told,
        )  # fmt: skip
    entries = [library.find(name) for name in names]
    with busy(f"Merging {len(names)} experts"):
        experts = [load_expert(e, backbone.sites, dtype=backbone.dtype) for e in entries]
        validate(plan, experts)
        merged = apply(plan, experts, id)
        entry = add_merged(
            library, plan, merged, entries, backbone.sites, title=title, tags=tag or (),
            replace=replace,
        )  # fmt: skip
    out.print(_table(likenesses(names, experts, merged.expert)))
    lost = f", {merged.error:.1%} of the delta lost" if rank else ""
    notes.print(f"Added {escape(entry.ref)}, merged by {rule}{lost}.", highlight=False)


def _table(report: Sequence[Likeness]) -> Table:
    """Each source beside the merged expert."""
    table = Table("expert", "cosine to the merge", "norm of the merge, in its own")
    for row in report:
        norm = "-" if row.norm is None else f"{row.norm:.3f}"
        table.add_row(escape(row.source), f"{row.cosine:.3f}", norm)
    return table


def _numbers(text: str | None) -> list[float] | None:
    return None if text is None else [_number(part, "--weights") for part in text.split(",")]


def _named(given: Sequence[str] | None) -> dict[str, float]:
    parts = [text.partition("=") for text in given or ()]
    return {name: _number(value, "--param") for name, _, value in parts}


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise fail(f"{option}: {text!r} is not a number.", BAD_USAGE) from error
