"""Fit the statement map of a library: a linear turn of embeddings that sees denials.

Trained on all experts' own statements and on plain sentences made from their label wordings: each
is placed by its neighbours of the same expert, itself left out, and must land on the labels it
holds for. The map belongs to the library, not to an expert: one that joins later is placed by it
unchanged. `unseen` sentences stay out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from experts.manifest import TaskCard
from experts.statements import StatementMap, truth_table

STEPS = 150
BATCH = 24  # of each sort, per expert and step
LEARNING_RATE = 2e-3
STAY = 0.02  # pull towards the identity
NOISE = 0.3
SHARPEN = 4.0  # placements are used sharper than they are fitted, where nothing is left out
SAYINGS = (
    ("The answer is {}.", "The answer is not {}."),
    ("The label is {}.", "The label isn't {}."),
    ("The text is {}.", "The text is not {}."),
    ("This is a case of {}.", "This is not a case of {}."),
    ("It is {}.", "It is not {}."),
    ("{} fits the input.", "{} does not fit the input."),
    ("The input is best described as {}.", "It is false that the input is best described as {}."),
)
"""Plain ways to assert and to deny a label."""


@dataclass(frozen=True, eq=False)
class Corpus:
    """One expert's sentences: its own (S) and plain ones (Q), with the labels they hold for."""

    own_SD: Tensor
    own_SL: Tensor
    said_QD: Tensor
    said_QL: Tensor


def fit_statement_map(
    cards: Sequence[TaskCard], embed: Callable[[Sequence[str]], Tensor], seed: int = 0
) -> StatementMap | None:
    """The map of a library, or None when no expert has statements."""
    corpora = [_corpus(card, embed) for card in cards if any(lb.statements for lb in card.labels)]
    if not corpora:
        return None
    generator = torch.Generator().manual_seed(seed)
    identity_DD = torch.eye(corpora[0].own_SD.shape[1])
    map_DD = identity_DD.clone().requires_grad_()
    log_scale = torch.tensor(3.0, requires_grad=True)
    optimiser = torch.optim.AdamW([map_DD, log_scale], lr=LEARNING_RATE, weight_decay=0.0)
    for _ in range(STEPS):
        loss = STAY * (map_DD - identity_DD).square().sum()
        for corpus in corpora:
            loss = loss + _misplacement(corpus, map_DD, log_scale, generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return StatementMap(map_DD.detach(), SHARPEN * math.exp(log_scale.item()))


def _misplacement(
    corpus: Corpus, map_DD: Tensor, log_scale: Tensor, generator: torch.Generator
) -> Tensor:
    """Balanced cross-entropy between where sentences land and the labels they hold for."""
    own = torch.randint(len(corpus.own_SD), (BATCH,), generator=generator)
    said = torch.randint(len(corpus.said_QD), (BATCH,), generator=generator)
    asked_QD = torch.cat([corpus.own_SD[own], corpus.said_QD[said]])
    truth_QL = torch.cat([corpus.own_SL[own], corpus.said_QL[said]])
    noise = torch.randn(asked_QD.shape, generator=generator) * NOISE / asked_QD.shape[1] ** 0.5
    asked_QD = F.normalize(F.normalize(asked_QD + noise, dim=-1) @ map_DD, dim=-1)
    own_SD = F.normalize(corpus.own_SD @ map_DD, dim=-1)
    match_QS = asked_QD @ own_SD.T * log_scale.exp()
    itself = torch.zeros_like(match_QS)
    itself[torch.arange(BATCH), own] = -torch.inf
    placed_QL = (torch.softmax(match_QS + itself, dim=1) @ corpus.own_SL).clamp(1e-4, 1 - 1e-4)
    holds = -(truth_QL * placed_QL.log()).sum(1) / truth_QL.sum(1)
    fails = -((1 - truth_QL) * (1 - placed_QL).log()).sum(1) / (1 - truth_QL).sum(1)
    return (holds + fails).mean()


def _corpus(card: TaskCard, embed: Callable[[Sequence[str]], Tensor]) -> Corpus:
    labels = [label for label in card.labels if label.statements]
    own = [s for label in labels for s in (*label.statements, *label.negations)]
    said: list[str] = []
    rows: list[Tensor] = []
    one_LL = torch.eye(len(labels))
    for i, label in enumerate(labels):
        for k, wording in enumerate(label.known):
            for assertion, denial in (SAYINGS[k % len(SAYINGS)], SAYINGS[(k + 3) % len(SAYINGS)]):
                said += [assertion.format(wording.value), denial.format(wording.value)]
                rows += [one_LL[i], 1 - one_LL[i]]
    return Corpus(embed(own), truth_table(labels), embed(said), torch.stack(rows))
