"""Fit what says how sure it is that the first expert is a query's own: leave one expert out.

Every set-aside query is asked twice: with all experts there, and as if its own had never joined, so
that whoever comes first is wrong. Half of what a confidence must tell apart is of each kind. The
same few numbers hold for all experts that the metric was fitted on.

To experts that join later the metric is blind, and their densities are far higher, of inputs that
fit and of others. They have numbers of their own, fitted with parts of the library as if these had
joined later: among all others, and among themselves alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from routers.calibration import Calibration
from routers.confidence import LEAD, TERMS, USUAL_TERMS, VIEWS, sort_of, told, within
from routers.fitting.calibrate import WORDS, Asked
from routers.request.evidence import fuse, weighed

RIDGE = 1e-3
FEWEST = 3
"""Experts: one is away, and two must be left to differ."""


@dataclass(frozen=True, eq=False)
class Case:
    """One query under one condition: what is told of its first expert, and the truth."""

    first: int
    log_best: float
    seen: dict[str, float | None]
    is_own: bool


def fit_confidence(asked: Asked, constants: Calibration) -> Calibration:
    """The constants with `confidence` and `usual`; the weights of the views are theirs already.

    Of fewer than `FEWEST` experts there is nothing to learn what it is like when one is missing:
    the confidence stays the first one's probability.
    """
    if len(asked.views["input"][0]) < FEWEST:
        return constants
    sorts = {sort_of(views): list(_cases(asked, views, constants)) for views in _sorts(asked)}
    every = [case for cases in sorts.values() for case in cases]
    usual = {term: _usual(term, every) for term in USUAL_TERMS}
    constants = constants.model_copy(update={"usual": usual})
    if asked.joined:
        late = {
            sort_of(views, late=True): list(_late_cases(asked, views, constants))
            for views in _sorts(asked)
        }
        sorts |= {sort: cases for sort, cases in late.items() if cases}
    fitted = {sort: _fit(cases, constants) for sort, cases in sorts.items()}
    return constants.model_copy(update={"confidence": fitted})


def _sorts(asked: Asked) -> Iterator[frozenset[str]]:
    """Views of the sorts of query that have an input, by the better comparison of inputs."""
    inputs = {"input", "density"} & asked.views.keys()
    yield from (words | inputs for words in WORDS)


def _cases(asked: Asked, views: frozenset[str], constants: Calibration) -> Iterator[Case]:
    """Every query with these views, its own expert there and away."""
    here = {name: asked.views[name] for name in views}
    away = here if asked.away_QE is None else {**here, "density": asked.away_QE}
    for query, owner in enumerate(asked.owner_Q.tolist()):
        yield _case({n: v[query] for n, v in here.items()}, owner, constants)
        yield _case({n: v[query] for n, v in away.items()}, owner, constants, gone=[owner])


def _late_cases(asked: Asked, views: frozenset[str], constants: Calibration) -> Iterator[Case]:
    """Queries of experts that joined later, where one of these comes first."""
    for joined in asked.joined:
        known = torch.nonzero(~joined.late_E).flatten().tolist()
        for query, density_E in zip(joined.queries, joined.density_QE, strict=True):
            owner = int(asked.owner_Q[query])
            told = {n: density_E if n == "density" else asked.views[n][query] for n in views}
            for gone in ([], [owner], known, [owner, *known]):
                if len(gone) == len(density_E):
                    continue
                case = _case(told, owner, constants, gone=gone)
                if joined.late_E[case.first]:
                    yield case


def _fit(cases: Sequence[Case], constants: Calibration) -> dict[str, float]:
    """Weights of what is told of one sort of query."""
    rows = [told(c.log_best, c.seen, constants) for c in cases]
    names = [t for t in TERMS if any(row[t] for row in rows)]
    term_NT = torch.tensor([[row[t] for t in names] for row in rows], dtype=torch.float64)
    own_N = torch.tensor([c.is_own for c in cases], dtype=torch.float64)
    weight_T = _logistic(term_NT, own_N)
    return {n: float(f"{w:.4g}") for n, w in zip(names, weight_T.tolist(), strict=True)}


def _case(
    views: dict[str, Tensor], owner: int, constants: Calibration, *, gone: Sequence[int] = ()
) -> Case:
    """Args: gone: experts, by position, that are not there."""
    logit_E = fuse(views, {n: constants.views[n] for n in weighed(views)}).double()
    logit_E[list(gone)] = -torch.inf
    log_E = logit_E.log_softmax(dim=0)
    first = int(log_E.argmax())
    ranked = log_E[log_E > -torch.inf].sort(descending=True).values
    lead = float(ranked[0] - ranked[1]) if len(ranked) > 1 else None
    seen = {LEAD: lead, **{n: float(views[n][first]) for n in VIEWS if n in views}}
    return Case(first, float(log_E[first]), seen, first == owner)


def _usual(term: str, cases: Sequence[Case]) -> float:
    """The mean of what is told of first experts that are the query's own."""
    known = [v for c in cases if c.is_own and (v := within(term, c.seen.get(term))) is not None]
    return round(sum(known) / len(known), 4) if known else 0.0


def _logistic(term_NT: Tensor, own_N: Tensor) -> Tensor:
    """Weights (T,) of a logistic regression with a small ridge on standardised terms."""
    scale_T = term_NT.std(dim=0, unbiased=False).clamp(min=1e-6)
    scale_T[0] = 1.0  # the bias
    weight_T = torch.zeros(term_NT.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight_T], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        total = F.binary_cross_entropy_with_logits((term_NT / scale_T) @ weight_T, own_N)
        total = total + RIDGE * weight_T.square().sum()
        total.backward()
        return total

    optimiser.step(loss)
    return weight_T.detach() / scale_T
