"""Why these experts answer, in a sentence for people. Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence

from routers.presets import Preset
from routers.types import Chosen, Mode
from routers.weighing import Weighed


def reason_of(
    preset: Preset, mode: Mode, chosen: Sequence[Chosen], weighed: Weighed, able: int
) -> str:
    """The reason of a selection; `able` experts might have been in it."""
    if preset.wants_all:
        return _of_all(preset, mode, chosen, able)
    if weighed.is_unsure:
        return _of_unsure(chosen, weighed)
    first = chosen[0]
    if mode == "single":
        if not weighed.rivals:
            return f"{first.id} is the best by {preset.request}: it scores {first.score:.2f}."
        return f"{first.id} scores {first.score:.2f} and no other expert comes near."
    if mode == "token":
        return f"Each token chooses among {len(chosen)} candidates: {_names(chosen)}."
    return f"The best {len(chosen)} by {preset.request} are merged: {_names(chosen)}."


def _of_unsure(chosen: Sequence[Chosen], weighed: Weighed) -> str:
    """For a query that no expert surely fits."""
    which = f"the nearest {len(chosen)} answer" if len(chosen) > 1 else "the nearest answers"
    return (
        f"No expert surely fits (confidence {weighed.confidence:.2f}): {which} "
        f"at strength {weighed.strength:g}: {_names(chosen)}."
    )


def _of_all(preset: Preset, mode: Mode, chosen: Sequence[Chosen], able: int) -> str:
    """For a preset that wants all experts: how many of those able it got, and who ranked them."""
    first, count = chosen[0].id, "all" if len(chosen) == able else str(len(chosen))
    if able == 1:
        return f"{first} is the only expert that may answer."
    by = f", ranked by {preset.request}" if preset.request != "uniform" else ""
    if mode == "single":
        return f"Of {able} experts{by}, {first} answers alone: no other may be mixed with it."
    equal = " at equal weight" if preset.rule == "equal" else ""
    role = "candidates of every token" if mode == "token" else f"merged{equal}"
    return f"Of {able} experts{by}, {count} are {role}: {_names(chosen)}"


def _names(chosen: Sequence[Chosen]) -> str:
    return ", ".join(c.id for c in chosen[:3]) + (", ..." if len(chosen) > 3 else "")
