"""Fit the statement map of a library: a linear turn of what is read of sentences, to see denials.

Trained on all experts' own statements and on plain sentences made from their label wordings: each
is placed by its neighbours of the same expert, itself left out, and must land on the labels it
holds for. The map belongs to the library, not to an expert: one that joins later is placed by it
unchanged. `unseen` sentences stay out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from experts.manifest import Label, TaskCard
from experts.statements import StatementMap, sentences, truth_table

Read = Callable[[Sequence[str]], Tensor]
"""Sentences to (S, 2D), as `experts.statements.read_statements` does."""

STEPS = 150
BATCH = 24  # of each sort, per expert and step
LEARNING_RATE = 2e-3
STAY = 0.02  # pull towards the identity
NOISE = 0.6  # norm of Gaussian noise on the embedding of an asked sentence
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

    own_SF: Tensor
    own_SL: Tensor
    said_QF: Tensor
    said_QL: Tensor


def fit_statement_map(cards: Sequence[TaskCard], read: Read, seed: int = 0) -> StatementMap | None:
    """The map of a library, or None when no expert has statements to tell apart.

    Raises:
        ValueError: the map is not finite, as when what `read` gives is not.
    """
    # One stated label alone leaves nothing to place a sentence on but itself.
    corpora = [_corpus(card, read) for card in cards if len(_stated(card)) > 1]
    if not corpora:
        return None
    usual = Standard.of(torch.cat([c.own_SF for c in corpora]))
    corpora = [replace(c, own_SF=usual(c.own_SF), said_QF=usual(c.said_QF)) for c in corpora]
    generator = torch.Generator().manual_seed(seed)
    width = corpora[0].own_SF.shape[1] // 2
    identity_FD = torch.eye(2 * width, width)
    map_FD = identity_FD.clone().requires_grad_()
    log_scale = torch.tensor(3.0, requires_grad=True)
    optimiser = torch.optim.AdamW([map_FD, log_scale], lr=LEARNING_RATE, weight_decay=0.0)
    for _ in range(STEPS):
        loss = STAY * (map_FD - identity_FD).square().sum()
        for corpus in corpora:
            loss = loss + _misplacement(corpus, map_FD, log_scale, generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return _finite(usual.fold(map_FD.detach(), SHARPEN * math.exp(log_scale.item())))


@dataclass(frozen=True, eq=False)
class Standard:
    """Half-way features made comparable with embeddings: centred, and of about unit length.

    All half-way vectors of an encoder point nearly the same way; what tells sentences apart is
    how they differ from their mean. Linear, so that it folds into the map.
    """

    mean_F: Tensor
    factor_F: Tensor

    @classmethod
    def of(cls, read_SF: Tensor) -> Standard:
        """Taken from the half-way columns of `read_SF`; embeddings stay as they are."""
        width = read_SF.shape[1] // 2
        mean_F, spread_F = read_SF.mean(dim=0), read_SF.std(dim=0).clamp_min(1e-4)
        mean_F[:width] = 0
        factor_F = 1 / (spread_F * width**0.5)
        factor_F[:width] = 1
        return cls(mean_F, factor_F)

    def __call__(self, read_SF: Tensor) -> Tensor:
        """Sentences in these units."""
        return (read_SF - self.mean_F) * self.factor_F

    def fold(self, map_FD: Tensor, scale: float) -> StatementMap:
        """The statement map that does this first."""
        whole_FD = self.factor_F.unsqueeze(1) * map_FD
        return StatementMap(whole_FD, -self.mean_F @ whole_FD, scale)


def _misplacement(
    corpus: Corpus, map_FD: Tensor, log_scale: Tensor, generator: torch.Generator
) -> Tensor:
    """Balanced cross-entropy between where sentences land and the labels they hold for."""
    own = torch.randint(len(corpus.own_SF), (BATCH,), generator=generator)
    said = torch.randint(len(corpus.said_QF), (BATCH,), generator=generator)
    asked_QF = _blurred(torch.cat([corpus.own_SF[own], corpus.said_QF[said]]), generator)
    truth_QL = torch.cat([corpus.own_SL[own], corpus.said_QL[said]])
    asked_QD = F.normalize(asked_QF @ map_FD, dim=-1)
    own_SD = F.normalize(corpus.own_SF @ map_FD, dim=-1)
    match_QS = asked_QD @ own_SD.T * log_scale.exp()
    itself = torch.zeros_like(match_QS)
    itself[torch.arange(BATCH), own] = -torch.inf
    placed_QL = (torch.softmax(match_QS + itself, dim=1) @ corpus.own_SL).clamp(1e-4, 1 - 1e-4)
    holds = -(truth_QL * placed_QL.log()).sum(1) / truth_QL.sum(1)
    fails = -((1 - truth_QL) * (1 - placed_QL).log()).sum(1) / (1 - truth_QL).sum(1)
    return (holds + fails).mean()


def _blurred(asked_QF: Tensor, generator: torch.Generator) -> Tensor:
    """The sentences with noise on their embeddings: another one may mean nearly the same."""
    width = asked_QF.shape[1] // 2
    noise_QD = torch.randn(len(asked_QF), width, generator=generator) * NOISE / width**0.5
    embedding_QD = F.normalize(asked_QF[:, :width] + noise_QD, dim=-1)
    return torch.cat([embedding_QD, asked_QF[:, width:]], dim=1)


def _finite(placing: StatementMap) -> StatementMap:
    """The map itself.

    Raises:
        ValueError: it holds NaN or infinity.
    """
    parts = (placing.map_FD, placing.shift_D, torch.tensor(placing.scale))
    if not all(bool(t.isfinite().all()) for t in parts):
        raise ValueError("The fitted statement map holds NaN or infinity; it cannot be used.")
    return placing


def _stated(card: TaskCard) -> list[Label]:
    """The labels that have statements."""
    return [label for label in card.labels if label.statements]


def _corpus(card: TaskCard, read: Read) -> Corpus:
    labels = _stated(card)
    said: list[str] = []
    rows: list[Tensor] = []
    one_LL = torch.eye(len(labels))
    for i, label in enumerate(labels):
        for k, wording in enumerate(label.known):
            for assertion, denial in (SAYINGS[k % len(SAYINGS)], SAYINGS[(k + 3) % len(SAYINGS)]):
                said += [assertion.format(wording.value), denial.format(wording.value)]
                rows += [one_LL[i], 1 - one_LL[i]]
    return Corpus(read(sentences(labels)), truth_table(labels), read(said), torch.stack(rows))
