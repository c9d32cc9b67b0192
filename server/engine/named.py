"""What a caller named: is it there, can it be served, and does it make sense?

A name that cannot be served is an error with its reason; the bare backbone never stands in.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from copy import copy

from experts.entries import Entry
from experts.errors import BadExpert, ExpertError, MixError, UnknownExpert
from experts.snapshot import Snapshot
from routers.token import TOKEN_ROUTERS
from routers.types import Chosen, Selection
from server.errors import RequestError, UnknownModel

ROUNDING = 1e-3  # of weights that went through a client's JSON
UNSERVED = "Expert {!r} cannot be served: {}"
TAG = "tag:"
"""What stands before a tag where `allow` and `deny` name experts."""


def require_model(seen: Snapshot, backbone_id: str, model: str) -> None:
    """Check that a model that is named can answer.

    Raises:
        UnknownModel: it is neither an expert nor the backbone. BadExpert: as `require_expert`.
    """
    if model == backbone_id:
        return
    try:
        require_expert(seen, model)
    except UnknownExpert as error:
        raise UnknownModel(
            f"No model {model!r}; GET /v1/models lists them. {error.message}", param="model"
        ) from None


def require_expert(seen: Snapshot, name: str) -> Entry:
    """The expert that is named (`id`, `id@version` or an alias), if it can be served.

    Args:
        seen: the library as the caller sees it.

    Raises:
        UnknownExpert: it is not there. BadExpert: it is listed as bad, with its reason.
    """
    id = seen.aliases.get(name, name)
    if id not in seen.entries and id in seen.bad:
        raise BadExpert(UNSERVED.format(id, seen.bad[id]))
    return seen.find(name)


def naming(ref: str, error: ExpertError) -> ExpertError:
    """Why an expert could not be loaded, with its name where its files are at fault.

    A new error: the one that the cache has is told to all who wait.
    """
    if not isinstance(error, BadExpert):
        return error
    told = copy(error)
    told.message = UNSERVED.format(ref, error.message)
    told.args = (told.message,)
    return told


def reached(seen: Snapshot, name: str) -> frozenset[str]:
    """Ids of the experts that a name in `allow` or `deny` stands for; `tag:<name>` for several.

    Raises:
        UnknownExpert, BadExpert: as `require_expert`, and of a tag that no expert carries.
        RequestError: it names a former version, which no router chooses.
    """
    if name.startswith(TAG):
        found = seen.tagged.get(name.removeprefix(TAG))
        if found is None:
            raise UnknownExpert(f"No expert carries the tag {name.removeprefix(TAG)!r}.")
        return found
    entry = require_expert(seen, name)
    current = seen.entries.get(entry.id)
    if current is not entry:
        raise RequestError(
            f"{name!r} is a former version, and routers choose among current ones; name it in "
            "routing.experts.",
            param="routing",
        )
    return frozenset((entry.id,))


def require_version(seen: Snapshot, pinned: Chosen) -> Entry:
    """The version that a selection pins, if it is there still: it pins tensors, not a name.

    Raises:
        UnknownExpert, BadExpert: as `require_expert`. RequestError: the version is gone.
    """
    if entry := seen.at(pinned.id, pinned.version):
        return entry
    held = require_expert(seen, pinned.id).manifest.version
    raise RequestError(
        f"The selection pins version {pinned.version} of {pinned.id!r}, which is not kept; the "
        f"library has version {held}; route again.",
        param="routing.selection",
    )


def require_one_group(entries: Collection[Entry]) -> None:
    """Check that experts named together may act on one sample, by what their manifests say.

    Raises:
        MixError: they are of different merge groups.
    """
    groups: dict[str, list[str]] = {}
    for entry in entries:
        groups.setdefault(entry.manifest.merge_group, []).append(entry.ref)
    if len(groups) < 2:
        return
    unsure = any(entry.manifest.group is None for entry in entries)
    if unsure and len({entry.manifest.kind for entry in entries}) == 1:
        return  # told apart once they are loaded
    told = "; ".join(f"{', '.join(refs)} ({name})" for name, refs in groups.items())
    raise MixError(
        f"Experts of different merge groups cannot act on one sample: {told}. Name experts of one "
        "group, or ask once for each group.",
        groups=groups,
    )


def require_sound(selection: Selection) -> None:
    """Check a selection that a caller sent: the policy's own are sound.

    Raises:
        MixError: it contradicts itself, or its numbers are not finite.
    """
    if len(set(selection.refs)) < len(selection.refs):
        raise MixError("A selection names every expert once.")
    if selection.experts and abs(math.fsum(e.weight for e in selection.experts) - 1) > ROUNDING:
        raise MixError("The weights of a selection sum to 1; strength scales them together.")
    if (selection.mode == "base") == bool(selection.experts):
        raise MixError(f"A selection of mode {selection.mode!r} has the wrong number of experts.")
    if (selection.mode == "token") != (selection.token_router in TOKEN_ROUTERS):
        known = ", ".join(TOKEN_ROUTERS)
        raise MixError(f"Mode 'token', and it alone, has a token_router: {known}.")
    if selection.mode == "token" and all(e.fixed for e in selection.experts):
        raise MixError("In token mode, the token router weighs at least one expert.")
    numbers = [n for e in selection.experts for n in (e.weight, e.prior)]
    if not all(map(math.isfinite, (selection.strength, *numbers))):
        raise MixError("Weights, priors and strength of a selection must be finite.")
