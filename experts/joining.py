"""An adapter becomes an expert: its files copied, checked against the backbone, described, sealed.

Fills one folder; whether it becomes part of a library is the library's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from experts.artefacts import Artefacts
from experts.entries import CONFIG, Entry, copy_adapter
from experts.errors import BackboneError, MismatchedExpert
from experts.files import read_json
from experts.kinds import Adapter, Site, group_text, kind_of
from experts.loader import load_expert
from experts.manifest import BackboneRef, Manifest
from experts.weights import ExpertWeights
from experts.writing import put_artefacts, seal

WORDS = ("title", "instructions", "instruction_unseen", "labels", "samples", "tags")
"""What a manifest says of the task, whatever the weights."""

Describe = Callable[[ExpertWeights, Manifest, Artefacts], Artefacts]
"""From an expert's weights, its manifest and the artefacts it brings to those it will have."""


def settle(
    folder: Path,
    source: Path,
    known: Manifest | None,
    said: Mapping[str, object],
    *,
    version: int,
    heir_of: Entry | None,
    backbone: BackboneRef | None,
    sites: Mapping[str, Site],
    describe: Describe | None = None,
) -> Manifest:
    """Fill an empty folder with an adapter that loads on the backbone; what its manifest says.

    Args:
        known: the source's own manifest, if it has one. said: fields that replace what stands
            there, unless they are empty; the id among them. version: the least it may have.
        heir_of: the expert whose task it goes on with: what was said of that one, and its artefacts
            of the task, stay.

    Raises:
        BadExpert: it cannot be served; the message says why.
        BackboneError: there is no backbone to tell what an adapter without a manifest is for.
    """
    manifest = copy_adapter(source, folder, known) or _new_manifest(folder, backbone)
    given = {name: value for name, value in said.items() if value}
    inherited = {name: getattr(heir_of.manifest, name) for name in WORDS} if heir_of else {}
    told = given if known else {"title": said["id"], **inherited, **given}
    least = max(manifest.version, version)
    manifest = seal(folder, manifest.model_copy(update={**told, "version": least}))
    require_backbone(manifest, backbone)
    loaded = load_expert(Entry(folder, manifest), sites, dtype=torch.float32)
    if describe:
        brought = Entry(folder, manifest).read_artefacts()
        if heir_of:
            brought = heir_of.read_artefacts().of_task()
        put_artefacts(folder, describe(loaded, manifest, brought))
    seen = {"without_effect": loaded.inert, "group": group_text(loaded)}
    return seal(folder, manifest.model_copy(update=seen))


def require_backbone(manifest: Manifest, backbone: BackboneRef | None) -> None:
    """Refuse an expert of another backbone; without a backbone nothing can be compared.

    Raises:
        MismatchedExpert: it was trained on another one.
    """
    theirs = manifest.backbone
    if backbone is not None and backbone.fingerprint != theirs.fingerprint:
        raise MismatchedExpert(
            f"It was trained on backbone {theirs.id!r} ({theirs.fingerprint[:12]}...), and the "
            f"one that is served is {backbone.id!r} ({backbone.fingerprint[:12]}...)."
        )


def _new_manifest(folder: Path, backbone: BackboneRef | None) -> Manifest:
    """A manifest for an adapter that PEFT wrote, which carries none."""
    if backbone is None:
        raise BackboneError("Without a backbone, only experts with a manifest can be added.")
    kind = kind_of(Adapter(read_json(folder / CONFIG), {}))
    return Manifest(id="unnamed", title="", kind=kind.name, backbone=backbone)
