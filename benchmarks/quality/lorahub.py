"""LoraHub (Huang et al. 2023): a merge whose weights are searched on a few labelled examples.

Gradient-free, as published: nevergrad's NGOpt with 40 evaluations, weights in [-1.5, 1.5] that
begin at 0, up to 20 experts drawn at random, five examples, and 0.05 times the mean |weight| added
to the loss, which is the cross-entropy of the answer as it is served. The merge is the registry's
rule `lorahub`, so what is found becomes an expert like any other. Knows no task: every example
brings its own choices.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import nevergrad
import numpy as np
import torch

from experts.backbones import TextEncoder
from experts.merging import Merged, apply, make_plan, merge, validate
from experts.mix import RowMix, build_mix
from experts.stacks import stack_experts
from experts.training.data import Example
from experts.weights import ExpertWeights
from server.engine.judging import choose

SHOTS, BUDGET, MOST_EXPERTS = 5, 40, 20
LARGEST_WEIGHT = 1.5
PENALTY = 0.05
RULE = "lorahub"


@dataclass(frozen=True)
class LoraHubResult:
    """What a search found.

    Attributes:
        weights: of the experts that took part, by id.
        loss_before, loss_after: mean cross-entropy on the examples, in nats and without the
            penalty: of the bare backbone, and with the merge at these weights.
    """

    weights: Mapping[str, float]
    loss_before: float
    loss_after: float

    def merged(self, experts: Sequence[ExpertWeights], id: str) -> Merged:
        """The expert that these weights make of `experts`, which may hold others too."""
        chosen = [e for e in experts if e.id in self.weights]
        return merge(RULE, chosen, id, weights=[self.weights[e.id] for e in chosen])


def few_shot(examples: Sequence[Example], seed: int, count: int = SHOTS) -> list[Example]:
    """The few labelled examples of a task, drawn from those that experts may be trained on."""
    return random.Random(seed).sample(list(examples), min(count, len(examples)))


def search(
    backbone: TextEncoder,
    experts: Sequence[ExpertWeights],
    examples: Sequence[Example],
    seed: int,
    *,
    budget: int = BUDGET,
    most_experts: int = MOST_EXPERTS,
) -> LoraHubResult:
    """Search the weights at which the merged experts answer the examples best.

    Args:
        experts: of kind `lora` and equal ranks; more than `most_experts` are drawn from.
        examples: never from a test file. budget: evaluations of the loss.

    Raises:
        MixError: the experts cannot be merged by the rule.
    """
    drawn = random.Random(seed).sample(list(experts), min(most_experts, len(experts)))
    task = FewShot(backbone, drawn, examples)

    def objective(weight_E: np.ndarray) -> float:
        return task.loss(weight_E) + PENALTY * float(np.abs(weight_E).mean())

    space = nevergrad.p.Array(init=[0.0] * len(drawn), lower=-LARGEST_WEIGHT, upper=LARGEST_WEIGHT)
    space.random_state = np.random.RandomState(seed)
    optimizer = nevergrad.optimizers.NGOpt(parametrization=space, budget=budget)
    with warnings.catch_warnings():
        # NGOpt gives small budgets to COBYLA with a final radius that scipy sets right, and says.
        warnings.filterwarnings("ignore", "COBYLA: Invalid RHOEND")
        found_E = optimizer.minimize(objective).value
    return LoraHubResult(
        {e.id: float(w) for e, w in zip(drawn, found_E, strict=True)},
        loss_before=task.loss(np.zeros(len(drawn))),
        loss_after=task.loss(found_E),
    )


class FewShot:
    """A few labelled examples, tokenised and with their choices embedded once.

    Raises:
        MixError: the experts cannot be merged by the rule.
    """

    def __init__(
        self, backbone: TextEncoder, experts: Sequence[ExpertWeights], examples: Sequence[Example]
    ) -> None:
        self.backbone, self.experts = backbone, experts
        self.plan = make_plan(RULE, [e.id for e in experts], weights=[0.0] * len(experts))
        validate(self.plan, experts)
        self.rows = backbone.tokenize([e.input for e in examples], truncate=True)
        self.answers = [e.answer for e in examples]
        options = list(dict.fromkeys(o for e in examples for o in e.options))
        vectors = dict(zip(options, backbone.embed(options).cpu(), strict=True))
        self.choices = [torch.stack([vectors[o] for o in e.options]) for e in examples]

    def loss(self, weight_E: np.ndarray) -> float:
        """Mean cross-entropy of the answers with the experts merged at these weights."""
        plan = replace(self.plan, weights=tuple(weight_E.tolist()))
        with torch.inference_mode():
            made = apply(plan, self.experts, RULE).expert
            row = RowMix.of({made.id: 1.0})
            mix = build_mix([row] * len(self.rows), [stack_experts([made])])
            state_BD = self.backbone.encode(self.rows, mix).cpu()
        told = zip(state_BD, self.choices, self.answers, strict=True)
        return -sum(float(choose(s, c)[a].log()) for s, c, a in told) / len(self.answers)
