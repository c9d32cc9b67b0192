"""PHATGOOSE gates: one vector per site, trained for 100 steps with everything else frozen.

Muqeeth et al. 2024, section 3.1: the expert's output is multiplied by sigmoid(v . u) of the raw
token u, v starts at zero, and the objective and data are those the expert was trained with. The
trained gates are standardised for routing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from experts.backbones import Backbone
from experts.kernels import Lengths, Use
from experts.kinds import KINDS
from experts.manifest import TaskCard
from experts.mix import Mix
from experts.stacks import Stack, stack_experts
from experts.training.course import Corpus, course_of
from experts.training.data import Example
from experts.training.recipe import Recipe
from experts.training.schedule import Step
from experts.training.train import Progress, minimise
from experts.weights import ExpertWeights
from routers.token.gate import standardise

STEPS = 100
LEARNING_RATE = 5e-3


@dataclass(frozen=True, eq=False)
class GatedMix(Mix):
    """A mix of one expert whose output each token scales by sigmoid(v . u)."""

    stack: Stack | None = None
    gates: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def idle(self) -> bool:
        """Never: every row uses the one expert."""
        return False

    def apply(
        self, site: str, x_ND: Tensor, y_NO: Tensor, lengths: Lengths | None = None
    ) -> Tensor:
        """See `Mix.apply`."""
        assert self.stack is not None
        if site not in self.stack.sites:
            return y_NO
        open_N = torch.sigmoid(x_ND @ self.gates[site])
        # Strength scales an expert's output, a weight its parameters; strength goes by row, so
        # every token is a row of its own.
        expert_N1 = torch.zeros(len(x_ND), 1, dtype=torch.long, device=x_ND.device)
        use = Use(expert_N1, x_ND.new_ones(len(x_ND), 1), 1, len(x_ND))
        return KINDS[self.stack.kind].apply(y_NO, x_ND, self.stack.sites[site], use, open_N)


def fit_gates(
    backbone: Backbone,
    expert: ExpertWeights,
    examples: Sequence[Example],
    card: TaskCard,
    foreign: Sequence[str],
    recipe: Recipe,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Standardised gates (D,) per site of `expert`."""
    recipe = recipe.model_copy(update={"learning_rate": LEARNING_RATE})
    gates = {
        site: torch.zeros(
            backbone.sites[site].in_features, device=backbone.device, requires_grad=True
        )
        for site in expert.sites
    }
    stack = stack_experts([expert])
    course = course_of(backbone, [Corpus(examples, card, foreign)], recipe)

    def gated(rows: int) -> Mix:
        return GatedMix(groups=(), size=rows, stack=stack, gates=gates)

    def loss_of(step: Step) -> Tensor:
        return course.loss(step, gated)

    minimise(loss_of, list(gates.values()), course.steps()[:STEPS], recipe, progress)
    return {site: standardise(gate.detach()) for site, gate in gates.items()}
