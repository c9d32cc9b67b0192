"""From scores to the weights of a mix: one function a rule.

| rule | weights |
|---|---|
| equal | the same for all |
| softmax | of the score over a temperature |
| global | GLIDER's: of alpha times the score (section 4.3) |
| hedged | by probability where the router is sure; flatter and weaker as it is less so |

Knows positions and numbers, no experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from routers.calibration import Calibration
from routers.confidence import confidence
from routers.presets import Preset
from routers.request import Scores

# A candidate this far behind in prior is left out. Gate scores lie within +-sqrt(d): at the demo
# backbone's sites of 384 features two differ by 39.2 at most, so no token could choose it there. At
# the 6 sites of 1536 features they may differ by 78.4, so one could; the widest difference seen
# there is 24.5 (all 18 experts, ten sentences).
HOPELESS = 40.0
UNSURE = 0.5
"""Below this confidence the mix says that no expert fits."""
LEAST_SHARE = 0.05
"""Of the first one's weight: an expert with less costs more than it says."""
LATE_SURE = 0.75
"""So sure of an expert that joined later is as good as wholly sure. One is seldom surer, as the
metric knows nothing of its task. On questions set aside of the demo library's tasks, a part of the
experts late and their own there or gone, 1.0 is as good and 0.5 is not; what a later expert is
asked for gains by it."""
STRENGTHS = 20
"""Steps of strength from 0 to 1: equal selections share a pass, and finer steps say nothing."""


@dataclass(frozen=True, eq=False)
class Weighed:
    """Experts by position, best first, and how they are mixed.

    Attributes:
        prior_K: logits of the mix; in token mode they are added to the token router's scores.
        rivals: how many might have been mixed with the first, had they come near.
        alpha: of the global rule. confidence: of the hedged rule.
    """

    kept: list[int]
    prior_K: Tensor
    rivals: int
    strength: float = 1.0
    alpha: float | None = None
    confidence: float | None = None

    @property
    def weight_K(self) -> Tensor:
        """Weights (K,) that sum to 1, in float64."""
        return torch.softmax(self.prior_K, dim=0)

    @property
    def is_unsure(self) -> bool:
        """Whether no expert surely fits."""
        return self.confidence is not None and self.confidence < UNSURE

    def alive(self) -> Weighed:
        """Those whom a token could choose."""
        return self.first(int((self.prior_K[0] - self.prior_K <= HOPELESS).sum()))

    def first(self, count: int) -> Weighed:
        """The best few."""
        return replace(self, kept=self.kept[:count], prior_K=self.prior_K[:count])


def weigh(
    preset: Preset, ranked: Sequence[int], scores: Scores, constants: Calibration, limit: int,
    *, others: Sequence[int] = (), late: bool = False,
) -> Weighed:  # fmt: skip
    """How a preset mixes these experts.

    Args:
        ranked: positions of those that may be mixed, best first. limit: of how many.
        others: positions of those that may answer too, but not be mixed with the best one.
        late: the best one joined after the constants were fitted.
    """
    if preset.rule == "hedged":
        return _hedged(ranked, others, scores, constants, limit, late=late)
    kept = list(ranked[:limit])
    score_K = scores.score_E[kept].double()
    alpha = constants.alpha(float(score_K[0])) if preset.rule == "global" else None
    scale = alpha if alpha is not None else _scale(preset)
    return Weighed(kept, score_K * scale, len(kept) - 1, alpha=alpha)


def _scale(preset: Preset) -> float:
    """What a score is multiplied by to become a logit of the mix."""
    return 1 / preset.temperature if preset.rule == "softmax" else 0.0


def _hedged(
    ranked: Sequence[int], others: Sequence[int], scores: Scores, constants: Calibration,
    limit: int, *, late: bool,
) -> Weighed:  # fmt: skip
    """The mean of two mixes, weighed by how sure it is that the first expert fits.

    Where an expert fits, experts are mixed by their probability. Where none does, any single one
    hurts, but many of the nearest help a little, at less than full strength.
    How sure it is, those say too who cannot be mixed with the first.
    """
    positions = [*ranked, *others]
    score_A = scores.score_E[positions].double()
    log_A = torch.log_softmax(score_A.clamp(min=torch.finfo(torch.float64).tiny).log(), dim=0)
    lead = float(log_A[0] - log_A[1:].max()) if len(positions) > 1 else None
    sure = confidence(float(log_A[0]), lead, positions[0], scores.views, constants, late=late)
    trust = min(1.0, sure / LATE_SURE) if late else sure
    log_K = constants.sharpness * log_A[: len(ranked)]
    sharp_K = log_K[:limit].softmax(dim=0)
    flat_K = (constants.flatness * log_K[:limit]).softmax(dim=0)
    weight_K = trust * sharp_K + (1 - trust) * constants.unsure * flat_K
    strength = float(weight_K.sum())
    count = int((weight_K >= LEAST_SHARE * weight_K[0]).sum())
    return Weighed(
        positions[:count],
        (weight_K[:count] / weight_K[:count].sum()).log(),
        len(log_K[:limit]) - 1,
        round(strength * STRENGTHS) / STRENGTHS,
        confidence=sure,
    )
