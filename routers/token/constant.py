"""Token router `constant`: no preference, so each token keeps the request's own prior.

With the logarithms of the request weights as priors, token mode is merge mode: a test says so.
"""

from __future__ import annotations

from torch import Tensor

from experts.kernels import Use


class ConstantRouter:
    """All candidates score zero."""

    artefact = ""

    def scores(self, x_ND: Tensor, V_ED: Tensor, use: Use) -> Tensor:
        """See `experts.token_routing.TokenRouter.scores`."""
        return x_ND.new_zeros(use.tokens, use.width)
