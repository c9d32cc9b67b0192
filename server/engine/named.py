"""What a caller named: is it there, can it be served, and does it make sense?

A name that cannot be served is an error with its reason; the bare backbone never stands in.
"""

from __future__ import annotations

import math

from experts.entries import Entry
from experts.errors import BadExpert, MixError, UnknownExpert
from experts.library import Library
from routers.token import TOKEN_ROUTERS
from routers.types import Chosen, Selection
from server.errors import RequestError, UnknownModel

ROUNDING = 1e-3  # of weights that went through a client's JSON


def require_model(library: Library, backbone_id: str, model: str) -> None:
    """Check that a model that is named can answer.

    Raises:
        UnknownModel: it is neither an expert nor the backbone. BadExpert: as `require_expert`.
    """
    if model == backbone_id:
        return
    try:
        require_expert(library, model)
    except UnknownExpert as error:
        raise UnknownModel(
            f"No model {model!r}; GET /v1/models lists them. {error.message}", param="model"
        ) from None


def require_expert(library: Library, name: str) -> Entry:
    """The expert that is named (`id` or `id@version`), if it can be served.

    Raises:
        UnknownExpert: it is not there. BadExpert: it is listed as bad, with its reason.
    """
    if name not in library.entries and name in library.bad:
        raise BadExpert(f"Expert {name!r} cannot be served: {library.bad[name]}")
    return library.find(name)


def require_version(library: Library, pinned: Chosen) -> None:
    """Check that the version a selection pins is there still: it pins tensors, not a name.

    Raises:
        UnknownExpert, BadExpert: as `require_expert`. RequestError: the version is gone.
    """
    if library.snapshot.at(pinned.id, pinned.version):
        return
    held = require_expert(library, pinned.id).manifest.version
    raise RequestError(
        f"The selection pins version {pinned.version} of {pinned.id!r}, which is not kept; the "
        f"library has version {held}; route again.",
        param="routing.selection",
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
