"""Calibrate the evidence router on examples set aside before training.

Each query is asked in a wording and with an instruction that are taken out of its expert's
artefacts for that moment, so that what is learnt holds for words nobody has seen: an exact match
of strings never occurs here. The weights belong to the views, not to the experts, so adding an
expert changes none of them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from experts.backbones import Backbone
from experts.embedder import Embedder
from experts.manifest import TaskCard
from experts.training.data import Example
from routers.calibration import USUAL, VIEWS
from routers.catalogue import Catalogue, Routed
from routers.index import UNSCORED
from routers.request.evidence import filled, view_scores
from routers.types import Features, Query

FOLDS = 4
PER_TASK = 60
PRIOR = 0.02  # weak: few or easily told tasks would send the weights to infinity
WORDS = (
    frozenset[str](),
    frozenset({"choices", "labels"}),
    frozenset({"instruction"}),
    frozenset({"choices", "labels", "instruction"}),
)
"""Which words a query may come with, beside its input; the weights must do for all of them."""


ROUNDS, PARTS = 3, 3
"""Experts are put into so many parts, by chance, so many times; those of a part join later."""
FEWEST_PARTED = 2 * PARTS
"""Experts: two that join later are there to differ."""

Without = Callable[[str], Catalogue]
"""From an expert to the catalogue as it would be if it had never joined."""
Later = Callable[[Collection[str]], Catalogue]
"""From experts to the catalogue as it would be if the metric had never seen their tasks."""


@dataclass(frozen=True, eq=False)
class Joined:
    """Set-aside queries of experts that joined after the metric was fitted.

    Attributes:
        late_E: who joined later, and who has no task that the metric could have seen.
        queries: positions of the queries among all that were asked.
        density_QE: log-densities, by the metric of the other experts' tasks.
    """

    late_E: Tensor
    queries: Sequence[int]
    density_QE: Tensor


@dataclass(frozen=True, eq=False)
class Asked:
    """Set-aside queries of known owner: view name -> (Q, E), and the owner's position.

    What a query has not, no expert is scored by: an instruction where no card says one, and
    choices where the answer is to be written.

    `known` says which experts have tasks that the metric has seen. `away` is the view of
    log-densities as it would be had the owner never joined: what its column holds means nothing.
    `joined`: the same, had some experts joined later.
    """

    views: Mapping[str, Tensor]
    owner_Q: Tensor
    known_E: Tensor
    away_QE: Tensor | None = None
    joined: Sequence[Joined] = ()

    @property
    def conditions(self) -> list[frozenset[str]]:
        """Sets of views that count together."""
        inputs = [v for v in ("input", "density") if v in self.views]
        return [*(words | {i} for words in WORDS for i in inputs), WORDS[1]]


def calibrate_views(asked: Asked) -> dict[str, float]:
    """Weights of the views, by maximum likelihood of each query's own expert."""
    usual_V = torch.tensor([math.log(USUAL[v]) for v in VIEWS])
    view_QE = {name: filled(name, score_QE) for name, score_QE in asked.views.items()}
    log_weight_V = usual_V.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([log_weight_V], max_iter=200, line_search_fn="strong_wolfe")

    def logits(views: frozenset[str], weight: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([weight[v] * view_QE[v] for v in sorted(views)]).sum(dim=0)

    def loss() -> Tensor:
        optimiser.zero_grad()
        weight = dict(zip(VIEWS, log_weight_V.exp(), strict=True))
        total = sum(
            (F.cross_entropy(logits(c, weight), asked.owner_Q) for c in asked.conditions),
            start=PRIOR * (log_weight_V - usual_V).square().sum(),
        )
        total.backward()
        return total

    optimiser.step(loss)
    weights = log_weight_V.detach().exp().tolist()
    return {v: round(w, 4) for v, w in zip(VIEWS, weights, strict=True)}


def ask(
    backbone: Backbone,
    embedder: Embedder,
    catalogue: Catalogue,
    cards: Mapping[str, TaskCard],
    aside: Mapping[str, Sequence[Example]],
    without: Without | None = None,
    later: Later | None = None,
) -> Asked:
    """Score set-aside examples of every expert against the catalogue, a fold of words at a time.

    Args:
        backbone: sees inputs. embedder: sees words. cards, aside: by expert id.
        without, later: see `Without` and `Later`; None where inputs are not compared by a metric.
    """
    rng = random.Random(0)
    labels = [w.text for card in cards.values() for label in card.labels for w in label.known]
    queries = [
        (fold, id, _query(example, cards[id], fold, rng.choice(labels or [""])))
        for fold in range(FOLDS)
        for id, examples in aside.items()
        for example in examples[fold:PER_TASK:FOLDS]
    ]
    words = list(dict.fromkeys(t for *_, q in queries for t in (q.instruction, *q.choices) if t))
    vector = dict(zip(words, embedder.embed(words), strict=True))
    input_QF = backbone.features([q.input for *_, q in queries])
    folds = [
        Catalogue([_without(e, fold) for e in catalogue.experts], metric=catalogue.metric)
        for fold in range(FOLDS)
    ]
    rows: dict[str, list[Tensor]] = {}
    for (fold, _, query), input_F in zip(queries, input_QF, strict=True):
        choice_CD = torch.stack([vector[c] for c in query.choices]) if query.choices else None
        half_D = backbone.halfway(input_F)
        asked = Features(half_D, vector.get(query.instruction), choice_CD, input_F=input_F)
        missing = dict.fromkeys(WORDS[-1], torch.full((len(catalogue),), UNSCORED))
        for view, score_E in {**missing, **view_scores(asked, folds[fold])}.items():
            rows.setdefault(view, []).append(score_E)
    owner_Q = torch.tensor([catalogue.position(id) for _, id, _ in queries])
    owners = [id for _, id, _ in queries]
    compared = "density" in rows
    away_QE = _away(owners, input_QF, without) if without and compared else None
    joined = list(_joined(owners, aside, input_QF, later)) if later and compared else []
    known_E = torch.tensor([id in aside for id in catalogue.ids])
    views = {v: torch.stack(r) for v, r in rows.items()}
    return Asked(views, owner_Q, known_E, away_QE, joined)


def _away(owners: Sequence[str], input_QF: Tensor, without: Without) -> Tensor:
    """(Q, E) log-densities of inputs whose own expert never joined."""
    own: dict[str, list[int]] = {}
    for q, id in enumerate(owners):
        own.setdefault(id, []).append(q)
    found: dict[int, Tensor] = {}
    for id, positions in own.items():
        catalogue = without(id)  # one at a time: each is as large as the library
        found.update(zip(positions, _densities(catalogue, input_QF[positions]), strict=True))
    return torch.stack([found[q] for q in range(len(owners))])


def _joined(
    owners: Sequence[str], known: Collection[str], input_QF: Tensor, later: Later
) -> Iterator[Joined]:
    """A part of the experts after another, each as if these had joined later."""
    for part in parts_of(set(owners), ROUNDS):
        queries = [q for q, id in enumerate(owners) if id in part]
        catalogue = later(part)
        late_E = torch.tensor([id in part or id not in known for id in catalogue.ids])
        yield Joined(late_E, queries, _densities(catalogue, input_QF[queries]))


def parts_of(experts: Collection[str], rounds: int = 1) -> Iterator[frozenset[str]]:
    """Parts of a library to take as if they had joined later, `PARTS` a round; none of a few."""
    ids, rng = sorted(experts), random.Random(0)
    if len(ids) < FEWEST_PARTED:
        return
    for _ in range(rounds):
        rng.shuffle(ids)
        yield from (frozenset(ids[i::PARTS]) for i in range(PARTS))


def _densities(catalogue: Catalogue, input_QF: Tensor) -> Tensor:
    """(Q, E) of a catalogue that compares by density."""
    rows = [catalogue.densities(Features(input_F=input_F)) for input_F in input_QF]
    return torch.stack([row_E for row_E in rows if row_E is not None])


def _query(example: Example, card: TaskCard, fold: int, foreign: str) -> Query:
    """One example, its labels said in the fold's wording with a foreign one added.

    A text that is to be written comes without choices: no caller would know it.
    """
    said = card.instructions or ("",)
    instruction = said[fold % len(said)]
    if example.is_written:
        return Query(example.input, instruction)
    by_value = {label.value: label for label in card.labels}
    choices = [
        by_value[o].known[fold % len(by_value[o].known)].text if o in by_value else o
        for o in example.options
    ]
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
