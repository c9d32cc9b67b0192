"""Calibrate the instruction router on examples set aside before training.

Each query is asked in a wording and with an instruction that are taken out of its expert's
artefacts for that moment, so that what is learnt holds for words nobody has seen: an exact match
of strings never occurs here. The weights belong to the views, not to the experts, so adding an
expert changes none of them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from experts.manifest import TaskCard
from experts.training.data import Example
from routers.calibration import VIEWS, Calibration
from routers.catalogue import Catalogue, Routed
from routers.request.instruction import view_scores
from routers.types import Features, Query

FOLDS = 4
PER_TASK = 60
FLOOR_QUANTILE = 0.005
USUAL_WEIGHT = 15.0  # a weak prior: few or easily told tasks would send the weights to infinity
PRIOR = 0.02
CONDITIONS: tuple[frozenset[str], ...] = (
    frozenset({"input"}),
    frozenset({"input", "choices", "labels"}),
    frozenset({"input", "instruction"}),
    frozenset({"input", "choices", "labels", "instruction"}),
    frozenset({"choices", "labels"}),
)
"""Which views a query may come with; the weights must do for all of them."""


Embed = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True, eq=False)
class Asked:
    """Set-aside queries of known owner: view name -> (Q, E) cosines, and the owner's position."""

    views: Mapping[str, Tensor]
    owner_Q: Tensor


def calibrate_views(asked: Asked) -> Calibration:
    """Weights by maximum likelihood of each query's own expert, and the floors of a fit.

    The rule's constants keep their defaults.
    """
    log_weight_V = torch.full((len(VIEWS),), math.log(USUAL_WEIGHT), requires_grad=True)
    optimiser = torch.optim.LBFGS([log_weight_V], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        weight = dict(zip(VIEWS, log_weight_V.exp(), strict=True))
        total = sum(
            (F.cross_entropy(_logits(asked, weight, c), asked.owner_Q) for c in CONDITIONS),
            start=PRIOR * (log_weight_V - math.log(USUAL_WEIGHT)).square().sum(),
        )
        total.backward()
        return total

    optimiser.step(loss)
    weight = dict(zip(VIEWS, log_weight_V.detach().exp().tolist(), strict=True))
    floors = {v: _floor(asked.views[v], asked.owner_Q) for v in VIEWS}
    return Calibration(views={v: round(w, 4) for v, w in weight.items()}, floors=floors)


def _floor(cosine_QE: Tensor, owner_Q: Tensor) -> float:
    """The cosine that all but a few queries reach with the expert they belong to."""
    own_Q = cosine_QE.gather(1, owner_Q.unsqueeze(1)).squeeze(1)
    return round(float(torch.quantile(own_Q, FLOOR_QUANTILE)), 4)


def ask(
    embed: Embed,
    features: Embed,
    catalogue: Catalogue,
    cards: Mapping[str, TaskCard],
    aside: Mapping[str, Sequence[Example]],
) -> Asked:
    """Score set-aside examples of every expert against the catalogue, a fold of words at a time.

    Args:
        embed: unit vectors of words. features: of inputs. cards, aside: by expert id.
    """
    rng = random.Random(0)
    labels = [w.text for card in cards.values() for label in card.labels for w in label.known]
    queries = [
        (fold, id, _query(example, cards[id], fold, rng.choice(labels or [""])))
        for fold in range(FOLDS)
        for id, examples in aside.items()
        for example in examples[fold:PER_TASK:FOLDS]
    ]
    words = list(dict.fromkeys(t for *_, q in queries for t in (q.instruction, *q.choices)))
    vector = dict(zip(words, embed(words), strict=True))
    input_QD = features([q.input for *_, q in queries])
    folds = [Catalogue([_without(e, fold) for e in catalogue.experts]) for fold in range(FOLDS)]
    rows: dict[str, list[Tensor]] = {v: [] for v in VIEWS}
    for (fold, _, query), input_D in zip(queries, input_QD, strict=True):
        choice_CD = torch.stack([vector[c] for c in query.choices])
        asked = Features(input_D, vector[query.instruction], choice_CD)
        for view, cosine_E in view_scores(asked, folds[fold]).items():
            rows[view].append(cosine_E)
    owner_Q = torch.tensor([catalogue.position(id) for _, id, _ in queries])
    return Asked({v: torch.stack(r) for v, r in rows.items()}, owner_Q)


def _query(example: Example, card: TaskCard, fold: int, foreign: str) -> Query:
    """One example, its labels said in the fold's wording with a foreign one added."""
    by_value = {label.value: label for label in card.labels}
    choices = [
        by_value[o].known[fold % len(by_value[o].known)].text if o in by_value else o
        for o in example.options
    ]
    said = card.instructions or ("",)
    instruction = said[fold % len(said)]
    return Query(example.input, instruction, (*choices, *([foreign] if foreign else [])))


def _without(expert: Routed, fold: int) -> Routed:
    """The expert as if a fold's wording of each label and its instruction had never been seen."""
    artefacts = expert.artefacts
    instructions, choices, forms = artefacts.instructions, artefacts.choices, expert.forms
    if instructions is not None and len(instructions) > 1:
        keep = [i for i in range(len(instructions)) if i != fold % len(instructions)]
        instructions = instructions[keep]
    if choices is not None and forms:
        starts = [sum(forms[:i]) for i in range(len(forms))]
        gone = {s + fold % n for s, n in zip(starts, forms, strict=True) if n > 1}
        choices = choices[[i for i in range(len(choices)) if i not in gone]]
        forms = tuple(max(1, n - 1) for n in forms)
    changed = replace(artefacts, instructions=instructions, choices=choices)
    return replace(expert, artefacts=changed, forms=forms)


def _logits(asked: Asked, weight: Mapping[str, Tensor | float], views: frozenset[str]) -> Tensor:
    return sum(
        (weight[v] * asked.views[v] for v in sorted(views)),
        start=torch.zeros_like(asked.views["input"]),
    )
