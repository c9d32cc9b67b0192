"""Fit what says how sure it is that the first expert is a query's own: leave one expert out.

Every set-aside query is asked twice: with all experts there, and as if its own had never joined, so
that whoever comes first is wrong. Half of what a confidence must tell apart is of each kind. The
same few numbers hold for all experts that the metric was fitted on.

To experts that join later the metric is blind, and their densities are far higher, of inputs that
fit and of others. They have numbers of their own, fitted with parts of the library as if these had
joined later: among all others, and among themselves alone. Experts of no task count as later ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from routers.calibration import Calibration
from routers.confidence import BIAS, LEAD, TERMS, USUAL_TERMS, VIEWS, sort_of, told, within
from routers.fitting.calibrate import WORDS, Asked
from routers.index import UNSCORED
from routers.request.evidence import fuse, weighed

RIDGE = 1e-3
LEAST_SPREAD = 1e-3
"""Terms that differ less between cases say nothing."""
FEWEST_CASES = 4
"""Of either kind, right and wrong, that a sort of query is learnt from."""
FEWEST = 3
"""Experts: one is away, and two must be left to differ."""


@dataclass(frozen=True)
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
    known = {sort_of(views): list(_cases(asked, views, constants)) for views in _sorts(asked)}
    later = {
        sort_of(views, late=True): list(_late_cases(asked, views, constants))
        for views in _sorts(asked)
    }
    usual, usual_late = _usual(known), _usual(later)
    fitted = _fitted(known, usual) | _fitted(later, usual_late)
    return constants.model_copy(
        update={"confidence": fitted, "usual": usual, "usual_late": usual_late}
    )


def _sorts(asked: Asked) -> Iterator[frozenset[str]]:
    """Views of the sorts of query that have an input, by the better comparison of inputs."""
    inputs = {"input", "density"} & asked.views.keys()
    yield from (words | inputs for words in WORDS)


def _cases(asked: Asked, views: frozenset[str], constants: Calibration) -> Iterator[Case]:
    """Every query with these views, its own expert there and away.

    Only where an expert comes first whose task the metric has seen.
    """
    here = {name: asked.views[name] for name in views}
    away = here if asked.away_QE is None else {**here, "density": asked.away_QE}
    every_E = torch.ones_like(asked.known_E)
    for query in _queries(asked, views):
        owner = int(asked.owner_Q[query])
        for of, there_E in zip((here, away), _with_and_without(owner, every_E), strict=True):
            case = _case({n: v[query] for n, v in of.items()}, owner, constants, there_E)
            if asked.known_E[case.first]:
                yield case


def _late_cases(asked: Asked, views: frozenset[str], constants: Calibration) -> Iterator[Case]:
    """Queries of experts that joined later, where one of these comes first."""
    asked_of = set(_queries(asked, views))
    for joined in asked.joined:
        for query, density_E in zip(joined.queries, joined.density_QE, strict=True):
            if query not in asked_of:
                continue
            owner = int(asked.owner_Q[query])
            of = {n: density_E if n == "density" else asked.views[n][query] for n in views}
            for among_E in (torch.ones_like(joined.late_E), joined.late_E):
                for there_E in _with_and_without(owner, among_E):
                    case = _case(of, owner, constants, there_E)
                    if joined.late_E[case.first]:
                        yield case


def _queries(asked: Asked, views: frozenset[str]) -> list[int]:
    """Those that have an instruction and choices, where these are among the views."""
    has_Q = torch.ones(len(asked.owner_Q), dtype=torch.bool)
    for name in views & {"instruction", "choices"}:
        has_Q &= (asked.views[name] > UNSCORED).any(dim=1)
    return torch.nonzero(has_Q).flatten().tolist()


def _with_and_without(owner: int, among_E: Tensor) -> list[Tensor]:
    """These experts, and these but a query's own; no more where it is the only one."""
    without_E = among_E.clone()
    without_E[owner] = False
    return [among_E, without_E] if without_E.any() else [among_E]


def _fitted(
    sorts: Mapping[str, Sequence[Case]], usual: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """Weights of what is told of each sort of query of which there are cases to learn from."""
    right = {sort: sum(case.is_own for case in cases) for sort, cases in sorts.items()}
    return {
        sort: _fit(cases, usual)
        for sort, cases in sorts.items()
        if FEWEST_CASES <= right[sort] <= len(cases) - FEWEST_CASES
    }


def _fit(cases: Sequence[Case], usual: Mapping[str, float]) -> dict[str, float]:
    """Weights of what is told of one sort of query."""
    rows = [told(c.log_best, c.seen, usual) for c in cases]
    every_NT = torch.tensor([[row[t] for t in TERMS] for row in rows], dtype=torch.float64)
    varies_T = every_NT.std(dim=0, unbiased=False) > LEAST_SPREAD
    names = [t for t, varies in zip(TERMS, varies_T.tolist(), strict=True) if varies or t == BIAS]
    own_N = torch.tensor([c.is_own for c in cases], dtype=torch.float64)
    weight_T = _logistic(every_NT[:, [TERMS.index(t) for t in names]], own_N)
    return {n: float(f"{w:.4g}") for n, w in zip(names, weight_T.tolist(), strict=True)}


def _case(views: dict[str, Tensor], owner: int, constants: Calibration, there_E: Tensor) -> Case:
    """Args: there_E: which experts are there; of the others nothing counts."""
    at_K = torch.nonzero(there_E).flatten()
    told_K = {name: score_E[at_K] for name, score_E in views.items()}
    log_K = fuse(told_K, {n: constants.views[n] for n in weighed(views)}).double().log_softmax(0)
    ranked = log_K.sort(descending=True).values
    best = int(log_K.argmax())
    lead = float(ranked[0] - ranked[1]) if len(ranked) > 1 else None
    seen = {LEAD: lead, **{n: float(told_K[n][best]) for n in VIEWS if n in views}}
    first = int(at_K[best])
    return Case(first, float(log_K[best]), seen, first == owner)


def _usual(sorts: Mapping[str, Sequence[Case]]) -> dict[str, float]:
    """By term, the mean of what is told of first experts that are the query's own."""
    own = [case.seen for cases in sorts.values() for case in cases if case.is_own]
    return {term: _mean(term, own) for term in USUAL_TERMS} if own else {}


def _mean(term: str, told_of: Sequence[Mapping[str, float | None]]) -> float:
    known = [v for seen in told_of if (v := within(term, seen.get(term))) is not None]
    return round(sum(known) / len(known), 4) if known else 0.0


def _logistic(term_NT: Tensor, own_N: Tensor) -> Tensor:
    """Weights (T,) of a logistic regression with a small ridge on standardised terms."""
    scale_T = term_NT.std(dim=0, unbiased=False)
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
