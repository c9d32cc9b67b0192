"""From an expert's folder to tensors ready for the primitive, with every check on the way.

Files that are not what the manifest lists, tensors that fit no site and values that are not
finite are refused with the reason; what loads is the whole expert. Keeps nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from experts.entries import CONFIG, WEIGHTS, Entry
from experts.errors import CorruptExpert, MismatchedExpert
from experts.files import parse_json, parse_tensors
from experts.host import HostExpert
from experts.kinds import Adapter, Fitted, Site, group_text, kind_of
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
    """Token-routing vectors at the sites the expert changes, as stored."""
    found = entry.read_artefacts().vectors
    wrong = [
        f"{artefact}.{site}"
        for artefact, by_site in found.items()
        for site, vector in by_site.items()
        if site not in sites or len(vector) != sites[site].in_features
    ]
    if wrong:
        raise MismatchedExpert(
            f"Routing vectors fit no site of the backbone: {', '.join(wrong[:5])}.",
            matched=list(expert.sites),
            unmatched=wrong,
        )
    return {
        artefact: {site: vector for site, vector in by_site.items() if site in expert.sites}
        for artefact, by_site in found.items()
    }
