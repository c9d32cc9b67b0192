"""A merged expert becomes an expert of a library: its manifest says what it was made of.

It has no routing artefacts, so no router chooses it: it answers by name only.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from experts.entries import Entry, require_id
from experts.kinds import Site
from experts.library import Library
from experts.manifest import Manifest
from experts.merging.plan import Merged, Plan
from experts.writing import write_expert


def add_merged(
    library: Library,
    plan: Plan,
    merged: Merged,
    sources: Sequence[Entry],
    sites: Mapping[str, Site],
    *,
    title: str | None = None,
    tags: Sequence[str] = (),
    replace: bool = False,
) -> Entry:
    """Add what became of a plan to a library, in float32: half precision would round the merge.

    Args:
        sources: the experts it was made of. sites: the backbone's. title, tags, replace: as in
            `Library.add`.

    Raises:
        DuplicateExpert: the id is taken, and not to be replaced. BadTags: as `Library.add`.
        BadExpert: it cannot be served, and the library is as before.
    """
    id = require_id(merged.expert.id)
    manifest = manifest_of(plan, merged, sources, title or f"Merge by {plan.rule.name}")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        made = write_expert(root, manifest, merged.expert, dtype=torch.float32)
        return library.add(made.path, id, sites=sites, roots=(root,), tags=tags, replace=replace)


def manifest_of(plan: Plan, merged: Merged, sources: Sequence[Entry], title: str) -> Manifest:
    """The manifest of a merged expert: rule, parameters, sources and the licences of their data."""
    first = sources[0].manifest
    licences = [str(e.manifest.provenance.get("licence") or "unknown") for e in sources]
    provenance: dict[str, str | float | None] = {
        "rule": plan.rule.name,
        "paper": plan.rule.paper,
        "parameters": json.dumps(dict(plan.parameters)),
        "weights": json.dumps(list(plan.weights)) if plan.weights else None,
        "sources": ", ".join(e.ref for e in sources),
        "licence": "; ".join(dict.fromkeys(licences)),
    }
    if plan.rank is not None:
        provenance |= {"rank": plan.rank, "relative_error": merged.error}
    return Manifest(
        id=merged.expert.id, title=title, kind=merged.expert.kind, backbone=first.backbone,
        provenance=provenance,
    )  # fmt: skip
