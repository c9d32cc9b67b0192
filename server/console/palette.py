"""Colours of experts: told apart by most people, in light and in dark, with a letter beside each.

The eight are those of Okabe and Ito (2008, "Color Universal Design"), whom colour-blind readers
chose; the first is left for what is not an expert. A colour never stands alone: whoever shows one
shows the letter or the name as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
REST = "#8a8a8a"
"""Of experts beyond the colours there are."""
DARK_INK, LIGHT_INK = "#111111", "#ffffff"


@dataclass(frozen=True)
class Mark:
    """How an expert is shown: its colour, what is readable on it, and its letter."""

    colour: str
    ink: str
    letter: str


def marks(experts: Iterable[str]) -> dict[str, Mark]:
    """A mark for each expert, in the order in which they matter."""
    return {id: _mark(place) for place, id in enumerate(dict.fromkeys(experts))}


def _mark(place: int) -> Mark:
    colour = COLOURS[place] if place < len(COLOURS) else REST
    return Mark(colour, ink_on(colour), _letter(place))


def _letter(place: int) -> str:
    """A, B, ..., Z, AA, AB, ..., as the columns of a sheet."""
    letters = ""
    place += 1
    while place:
        place, rest = divmod(place - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def ink_on(colour: str) -> str:
    """Black or white: what stands out more on a colour (WCAG 2.2, contrast ratio)."""
    light = luminance(colour)
    return DARK_INK if (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) else LIGHT_INK


def luminance(colour: str) -> float:
    """Relative luminance of a colour `#rrggbb`, from 0 to 1 (WCAG 2.2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
