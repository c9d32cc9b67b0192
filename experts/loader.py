"""From an expert's folder to tensors ready for the primitive, with every check on the way.

Files that are not what the manifest lists, tensors that fit no site and values that are not
finite are refused with the reason; what loads is the whole expert. Keeps nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from experts.artefacts import COEFFICIENTS
from experts.directions import direction_of
from experts.entries import CONFIG, WEIGHTS, Entry
from experts.errors import CorruptExpert, MismatchedExpert
from experts.files import parse_json, parse_tensors
from experts.host import HostExpert
from experts.kinds import KINDS, Adapter, Fitted, Site, group_text, kind_of
from experts.weights import ExpertWeights

# What arithmetic and pattern matching on a stranger's config may raise.
NONSENSE = (
    TypeError, ValueError, ArithmeticError, AssertionError, AttributeError, RecursionError,
    re.error,
)  # fmt: skip


def load_expert(
    entry: Entry,
    sites: Mapping[str, Site],
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> ExpertWeights:
    """An expert from its files to its device. Raises BadExpert as `read_expert` does."""
    return read_expert(entry, sites).materialise(dtype, device)


def read_expert(entry: Entry, sites: Mapping[str, Site]) -> HostExpert:
    """Read an expert's files, check them and fit them to the backbone's sites.

    Raises:
        BadExpert: one of its kinds; `details` of a mismatch hold what matched and what did not.
    """
    config = parse_json(entry.path / CONFIG, entry.read(CONFIG))
    stored = parse_tensors(entry.path / WEIGHTS, entry.read(WEIGHTS)).tensors
    fitted = _fit(entry, Adapter(config, stored), sites)
    vectors = _vectors(entry, fitted.expert, sites)
    read = HostExpert.of(fitted.expert, fitted.scales, vectors)
    return read.named(entry.id, entry.manifest.version)


def _fit(entry: Entry, adapter: Adapter, sites: Mapping[str, Site]) -> Fitted:
    kind = kind_of(adapter)
    if kind.name != entry.manifest.kind:
        raise CorruptExpert(
            f"The manifest says kind {entry.manifest.kind!r} and the adapter is {kind.name!r}."
        )
    try:
        fitted = kind.fit(adapter, sites, entry.id)
    except NONSENSE as error:
        raise CorruptExpert(f"{CONFIG} makes no sense: {error or type(error).__name__}.") from error
    said, group = entry.manifest.group, group_text(fitted.expert)
    if said not in (None, group):
        raise CorruptExpert(f"The manifest says merge group {said!r} and the tensors {group!r}.")
    return fitted


def _vectors(
    entry: Entry, expert: ExpertWeights, sites: Mapping[str, Site]
) -> dict[str, dict[str, Tensor]]:
    """Token-routing vectors (D,) at the sites the expert changes, in the types they are stored in.

    Those that are stored in short are written out, by the tensors of this very file.
    """
    found = entry.read_artefacts().vectors
    kind = KINDS[expert.kind]
    rows = {s: A_RD for s, t in expert.sites.items() if (A_RD := kind.input_rows(t)) is not None}
    _require_fitting(found, expert, sites, {s: len(A_RD) for s, A_RD in rows.items()})
    return {
        artefact: {
            site: direction_of(stored, rows[site]) if artefact in COEFFICIENTS else stored
            for site, stored in by_site.items()
            if site in expert.sites
        }
        for artefact, by_site in found.items()
    }


def _require_fitting(
    found: Mapping[str, Mapping[str, Tensor]],
    expert: ExpertWeights,
    sites: Mapping[str, Site],
    ranks: Mapping[str, int],
) -> None:
    widths = {name: site.in_features for name, site in sites.items()}
    wrong: dict[str, str] = {}
    for artefact, by_site in found.items():
        sizes = ranks if artefact in COEFFICIENTS else widths
        for site, stored in by_site.items():
            if (size := sizes.get(site)) != len(stored):
                wrong[f"{artefact}.{site}"] = f"{len(stored)} numbers, expected {size or 'none'}"
    if wrong:
        told = [f"{name} ({why})" for name, why in wrong.items()]
        raise MismatchedExpert(
            f"Routing vectors fit no site of the backbone: {', '.join(told[:5])}.",
            matched=list(expert.sites),
            unmatched=list(wrong),
        )
