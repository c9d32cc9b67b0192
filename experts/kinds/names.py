"""Adapter tensors to backbone sites: what matches, what does not, and why.

An adapter that does not fit is refused with both lists; nothing is ever skipped in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from experts.errors import CorruptExpert, MismatchedExpert
from experts.kinds.base import Site
from experts.packed import all_finite

PREFIX = "base_model.model."
"""What PEFT puts before every module name."""

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

Shape = tuple[int | None, ...]


def place(
    found: Mapping[str, Mapping[str, Tensor]],
    foreign: Sequence[str],
    shapes: Mapping[str, Mapping[str, Shape]],
    sites: Mapping[str, Site],
) -> tuple[dict[str, Mapping[str, Tensor]], tuple[str, ...]]:
    """Match an adapter's modules against the backbone's sites.

    Args:
        found: module name -> part -> tensor. foreign: tensor names of no known part.
        shapes: site -> part -> expected shape, None where any size will do.

    Returns:
        Tensors of the sites that reach the output, and the names of those that do not.

    Raises:
        MismatchedExpert: unless every module is a site and has every part in the right shape.
    """
    wrong = [*foreign]
    matched: list[str] = []
    for module, parts in found.items():
        reason = _misfit(parts, shapes.get(module))
        (wrong.append(f"{module} ({reason})") if reason else matched.append(module))
    if wrong or not matched:
        raise MismatchedExpert(
            f"{len(wrong)} of the adapter's modules match no site of the backbone: "
            f"{', '.join(wrong[:5]) or 'it has no modules at all'}"
            f"{', ...' if len(wrong) > 5 else ''}.",
            matched=matched,
            unmatched=wrong,
        )
    placed = {m: found[m] for m in matched if sites[m].reaches_output}
    inert = tuple(m for m in matched if not sites[m].reaches_output)
    if not placed:
        raise MismatchedExpert(
            "None of the adapter's sites can reach the backbone's output.", matched=matched
        )
    return placed, inert


def require_finite(placed: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Refuse tensors that are not numbers of a type PEFT writes, or hold NaN or infinity.

    Raises:
        CorruptExpert: with the tensors at fault.
    """
    alien = [f"{m}.{p} ({t.dtype})" for m, parts in placed.items() for p, t in parts.items()
             if t.dtype not in FLOATS]  # fmt: skip
    if alien:
        raise CorruptExpert("Tensors are not of a floating type.", tensors=alien)
    bad = [f"{m}.{p}" for m, parts in placed.items() for p, t in parts.items()
           if not all_finite(t)]  # fmt: skip
    if bad:
        raise CorruptExpert("Tensors hold NaN or infinity.", tensors=bad)


def _misfit(parts: Mapping[str, Tensor], expected: Mapping[str, Shape] | None) -> str | None:
    if expected is None:
        return "no such site"
    missing = sorted(set(expected) - set(parts))
    if missing:
        return f"lacks {', '.join(missing)}"
    for part, shape in expected.items():
        have = tuple(parts[part].shape)
        fits = len(have) == len(shape) and all(
            s in (None, h) for s, h in zip(shape, have, strict=True)
        )
        if not fits:
            want = " x ".join("any" if s is None else str(s) for s in shape)
            return f"{part} is {' x '.join(map(str, have))}, expected {want}"
    return None
