"""Experts are told apart by colour and letter, and both can be read."""

from __future__ import annotations

from itertools import combinations

import pytest

from server.console.palette import COLOURS, REST, ink_on, luminance, marks

# Machado et al. 2009, "A physiologically-based model for simulation of colour vision deficiency",
# severity 1: what a colour looks like to the three sorts of dichromats, in linear RGB.
BLINDNESS = {
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216),
               (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413),
               (-0.011820, 0.042940, 0.968881)),
    "tritan": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602),
               (0.004733, 0.691367, 0.303900)),
}  # fmt: skip


def linear(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]


def lab(rgb):
    """CIELAB (D65) of linear RGB."""
    matrix = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750),
              (0.0193339, 0.1191920, 0.9503041))  # fmt: skip
    white = (0.95047, 1.0, 1.08883)
    xyz = [sum(m * max(0, c) for m, c in zip(row, rgb, strict=True)) / w
           for row, w in zip(matrix, white, strict=True)]  # fmt: skip
    fx, fy, fz = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz)
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def apart(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5


@pytest.mark.parametrize("sort", BLINDNESS)
def test_colours_are_told_apart_by_who_is_colour_blind(sort):
    seen = {
        c: lab([sum(m * v for m, v in zip(row, linear(c), strict=True)) for row in BLINDNESS[sort]])
        for c in COLOURS
    }
    for a, b in combinations(COLOURS, 2):
        assert apart(seen[a], seen[b]) > 8, (a, b)  # about four times what can just be seen


@pytest.mark.parametrize("colour", [*COLOURS, REST])
def test_a_letter_can_be_read_on_its_colour(colour):
    low, high = sorted([luminance(colour), luminance(ink_on(colour))])
    assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG 2.2, AA


def test_every_expert_has_a_letter_of_its_own():
    found = marks(f"expert-{i}" for i in range(60))
    assert len({m.letter for m in found.values()}) == 60
    assert [m.letter for m in found.values()][:2] == ["A", "B"]
    assert [m.letter for m in found.values()][26] == "AA"
    assert len({m.colour for m in found.values()}) == len(COLOURS) + 1


def test_a_name_that_comes_twice_is_one_expert():
    assert list(marks(["b", "a", "b"])) == ["b", "a"]
