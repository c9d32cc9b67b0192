"""Weights per token: what a token router gives, and what the rows of a pass make of it.

Where rows ask for weights per token, a `TokenRouter` scores their candidates at every site; its
implementations live in `routers`, not here. Knows no experts' parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor

from experts.kernels import Use


class TokenRouter(Protocol):
    """Scores a row's candidates for every token of one site."""

    artefact: str
    """Which vectors of an expert it reads: "gate", "arrow", or "" for none of them."""

    def scores(self, x_ND: Tensor, V_ED: Tensor, use: Use) -> Tensor:
        """Scores (N, K) of each token's K candidates, before the request's prior.

        `V_ED` is zero where no expert of the stack has a vector at this site.
        """
        ...


class TokenRecorder(Protocol):
    """Listens to the weights a token router gave, for the trace."""

    def __call__(self, site: str, use: Use) -> None:
        """Called once a site with the weights per token in force."""
        ...


@dataclass(frozen=True, eq=False)
class TokenRules:
    """What B rows ask of the token router.

    Attributes:
        per_token_B: whether it weighs a row at all. prior_BK: added to its scores.
        keep_B1: how many candidates a token keeps. fixed_BK: weights that every token gives; the
            router shares out what is left.
    """

    per_token_B: Tensor
    prior_BK: Tensor
    keep_B1: Tensor
    fixed_BK: Tensor

    def rows(self, index: Tensor) -> TokenRules:
        """The same for rows `index`."""
        return TokenRules(*(getattr(self, f.name).index_select(0, index) for f in fields(self)))


class TokenWeigher:
    """Weights per token in passes of one shape: what is the same at every site is made once.

    Args:
        use: the rows' candidates, and their own weights.
    """

    def __init__(self, rules: TokenRules, use: Use) -> None:
        self._use = use
        self._prior_N1K = _per_token(use, rules.prior_BK)
        self._absent_N1K = None
        if use.present_BK is not None and not bool(use.present_BK.all()):
            self._absent_N1K = ~_per_token(use, use.present_BK)
        keeps_all = bool((rules.keep_B1 >= use.width).all())
        self._keep_N11 = None if keeps_all else _per_token(use, rules.keep_B1)
        self._fixed_N1K = _per_token(use, rules.fixed_BK) if bool(rules.fixed_BK.any()) else None
        routed_B1 = rules.per_token_B.unsqueeze(1)
        self._routed_N11 = None if bool(routed_B1.all()) else _per_token(use, routed_B1)
        self._beside: dict[int, Use] = {}

    def weights(
        self, router: TokenRouter, x_ND: Tensor, V_ED: Tensor, sites: int = 1
    ) -> Sequence[Tensor]:
        """Weights (N, K) at each of some sites that see the same tokens.

        Args:
            V_ED: the router's vectors at the first site, then those at the next, (sites * E, D).
        """
        if sites not in self._beside:
            self._beside[sites] = self._use.beside(sites)
        score_NX = router.scores(x_ND, V_ED, self._beside[sites])
        score_NSK = score_NX.view(len(x_ND), sites, self._use.width)
        if self._absent_N1K is not None:
            # In their places somebody else's experts are scored, whose numbers may overflow.
            score_NSK = score_NSK.masked_fill(self._absent_N1K, 0.0)
        score_NSK = score_NSK + self._prior_N1K
        if self._keep_N11 is None:
            weight_NSK = torch.softmax(score_NSK, dim=-1)
        else:
            weight_NSK = top_softmax(score_NSK, self._keep_N11)
        if self._fixed_N1K is not None:
            left_N11 = 1 - self._fixed_N1K.sum(dim=-1, keepdim=True)
            weight_NSK = weight_NSK * left_N11.clamp_min(0) + self._fixed_N1K
        if self._routed_N11 is not None:
            own_N1K = self._use.weight_NK.unsqueeze(1)
            weight_NSK = torch.where(self._routed_N11, weight_NSK, own_N1K)
        return weight_NSK.unbind(1)


def top_softmax(score: Tensor, keep: Tensor) -> Tensor:
    """Softmax over each token's best `keep` scores, zero elsewhere (PHATGOOSE, section 3.2).

    Exactly `keep` survive: of equal scores the earlier candidate does, as `argmax` promises. Taking
    the best one `keep` times is cheaper than `topk` or a stable sort for the few that are kept.

    Args:
        score: (..., K). keep: (..., 1), as many axes, at most K.
    """
    left = score.detach()
    for place in range(int(keep.max())):
        best = left.argmax(dim=-1, keepdim=True)
        taken = torch.where(keep > place, -torch.inf, left.gather(-1, best))
        left = left.scatter(-1, best, taken)
    return torch.softmax(score.masked_fill(left > -torch.inf, -torch.inf), dim=-1)


def _per_token(use: Use, value_BX: Tensor) -> Tensor:
    """A table of rows for each token, and any number of sites: (N, 1, X)."""
    return use.per_token_rows(value_BX).unsqueeze(1)
