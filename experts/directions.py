"""Directions of a site's input in short: as coefficients of the rows that the expert reads it by.

An update of rank R sees nothing of its input outside the span of R rows (those of LoRA's A), so R
numbers name a direction that D would spell out. Knows neither files nor what a direction is for.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

WEAKEST = 2.0**-10
"""Half precision's rounding: along singular vectors of the rows weaker than this (the strongest is
1), rounded coefficients would bring in more noise than there is of the direction."""
TINY = torch.finfo(torch.float64).tiny


def coefficients_of(v_D: Tensor, A_RD: Tensor) -> Tensor:
    """The shortest c (R,) whose `c A` points along `v_D`, of unit length; zero where v is.

    What of v lies outside the rows' span is lost.
    """
    c_R = torch.linalg.pinv(A_RD.double().T, rtol=WEAKEST) @ v_D.double()
    return F.normalize(c_R, dim=0, eps=TINY).to(v_D.dtype)


def direction_of(c_R: Tensor, A_RD: Tensor) -> Tensor:
    """The unit vector (D,) along `c A`, in c's type; zero where that is."""
    return F.normalize(c_R.double() @ A_RD.double(), dim=0, eps=TINY).to(c_R.dtype)
