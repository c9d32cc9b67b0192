"""Token router `arrow`: `|v . u|` with prototypes read off the expert's own weights.

Ostapenko et al. 2024, section 3.3. The prototype is the exact top right singular vector of the
expert's update (`routers.fitting.arrow`), not the power iteration of PEFT.
"""

from __future__ import annotations

from torch import Tensor

from experts.kernels import Use, scores


class ArrowRouter:
    """Magnitude of the token's component along the prototype; its sign is arbitrary."""

    artefact = "arrow"

    def scores(self, x_ND: Tensor, V_ED: Tensor, use: Use) -> Tensor:
        """See `experts.token_routing.TokenRouter.scores`."""
        return scores(x_ND, V_ED, use).abs()
