"""The one policy: from scores to a selection, with its reason in a sentence.

Knows the preset, the scores and the caller's wishes; never the text of a request.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from routers.calibration import Calibration
from routers.catalogue import Catalogue
from routers.presets import RANKING, Preset
from routers.reasons import reason_of
from routers.request import Scores
from routers.types import Chosen, Mode, Selection
from routers.weighing import Weighed, weigh

NAMED_DROPPED = 16  # the trace stays bounded


@dataclass(frozen=True)
class Wishes:
    """What the caller asked of the policy; None leaves it to the preset."""

    top_k: int | None = None
    mode: Mode | None = None
    allow: frozenset[str] | None = None
    deny: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Decision:
    """A selection and what the trace says of how it came about."""

    selection: Selection
    alpha: float | None = None
    confidence: float | None = None
    narrowed: bool = False
    dropped: Mapping[str, str] = field(default_factory=dict)
    fallback: str | None = None


BASE = Selection(mode="base", reason="The bare backbone was asked for.")


def ranked_preset(preset: Preset, catalogue: Catalogue, wishes: Wishes) -> Preset:
    """The preset as this catalogue needs it, before features are computed and experts are scored.

    One that wants all experts prefers none, and reads nothing of the query. Where some must be left
    out (too many, or several merge groups) it ranks them by `RANKING`; weights stay equal.
    """
    if preset.request != "uniform":
        return preset
    limit = limit_of(preset, wishes)
    allowed = catalogue.ids if wishes.allow is None else wishes.allow
    if len(allowed) <= limit + len(wishes.deny):  # else some must be left out, whoever they are
        able = [e for id in allowed if may_answer(id, wishes) and (e := catalogue.get(id))]
        if len(able) <= limit and len({e.group for e in able}) <= 1:
            return preset
    return replace(preset, request=RANKING)


def decide(
    preset: Preset, scores: Scores, catalogue: Catalogue, calibration: Calibration, wishes: Wishes
) -> Decision:
    """Choose experts, weights and mode for one sample.

    Args:
        preset: from `ranked_preset`. scores: of its request router, over `catalogue`.
    """
    able = _candidates(scores, catalogue, wishes)
    if not able:
        reason = "No expert of the library may answer."
        return Decision(Selection(mode="base", reason=reason), confidence=0.0, fallback="no_expert")
    fitting, others = _one_group(able, catalogue)
    late = calibration.joined_later(catalogue.ids[fitting[0]])
    limit = limit_of(preset, wishes)
    weighed = weigh(preset, fitting, scores, calibration, limit, others=others, late=late)
    count = len(able) if catalogue.whole == len(catalogue) else catalogue.whole
    selection = _select(preset, weighed, count, scores, catalogue, wishes)
    return Decision(
        selection,
        weighed.alpha,
        weighed.confidence,
        narrowed=preset.wants_all and len(weighed.kept) < count,
        dropped=_dropped(fitting[0], others, catalogue),
        fallback="no_fit" if weighed.is_unsure else None,
    )


def explicit(weights: Mapping[str, float], named: Mapping[str, tuple[str, int]]) -> Selection:
    """The experts a caller named: weights normalised, their sum kept as the strength.

    Args:
        weights: by whatever name it gave. named: id and version of each, by the same names.
    """
    strength = math.fsum(weights.values())
    chosen = tuple(
        Chosen(
            id=named[name][0],
            version=named[name][1],
            weight=w / strength if strength else 0.0,
        )
        for name, w in sorted(weights.items(), key=lambda item: (-item[1], item[0]))
    )
    return Selection(
        mode="single" if len(chosen) == 1 else "merge",
        experts=chosen,
        strength=strength,
        reason="The caller named the experts.",
    )


def _candidates(scores: Scores, catalogue: Catalogue, wishes: Wishes) -> list[int]:
    """Positions of the experts that may answer, best first."""
    order = torch.argsort(scores.score_E, descending=True, stable=True).tolist()
    return [i for i in order if may_answer(catalogue.ids[i], wishes)]


def may_answer(id: str, wishes: Wishes) -> bool:
    """Whether the caller lets an expert answer."""
    return id not in wishes.deny and (wishes.allow is None or id in wishes.allow)


def _one_group(ranked: Sequence[int], catalogue: Catalogue) -> tuple[list[int], list[int]]:
    """Experts merge only within a group: those of the best expert's, and the others."""
    group_E = [e.group for e in catalogue.experts]
    best = group_E[ranked[0]]
    kept = [i for i in ranked if group_E[i] == best]
    return kept, [i for i in ranked if group_E[i] != best]


def _dropped(best: int, others: Sequence[int], catalogue: Catalogue) -> dict[str, str]:
    """Why experts of other groups than the best one's are not merged with it, by id."""
    group_E = [e.group for e in catalogue.experts]
    return {
        catalogue.ids[i]: f"merge group {group_E[i]} differs from {group_E[best]}"
        for i in others[:NAMED_DROPPED]
    }


def _has_vectors(token: str, i: int, catalogue: Catalogue) -> bool:
    """Whether the token router can score an expert, or it must keep its weight at every token."""
    return token in catalogue.experts[i].artefacts.vectors


def limit_of(preset: Preset, wishes: Wishes) -> int:
    """How many experts a sample may use; in token mode top_k is per token, not per sample."""
    token = _token_router(preset, wishes) is not None
    return preset.experts if token or wishes.top_k is None else wishes.top_k


def _token_router(preset: Preset, wishes: Wishes) -> str | None:
    """The caller's mode stands over the preset's."""
    if wishes.mode == "merge":
        return None
    return preset.token or ("gate" if wishes.mode == "token" else None)


def _select(
    preset: Preset, weighed: Weighed, able: int, scores: Scores, catalogue: Catalogue,
    wishes: Wishes,
) -> Selection:  # fmt: skip
    """The experts kept of those able to answer, as a selection."""
    token = _token_router(preset, wishes)
    if token is not None:
        weighed = weighed.alive()
        if not any(_has_vectors(token, i, catalogue) for i in weighed.kept):
            token = None  # the request decides alone
    if token is None and weighed.alpha is not None and wishes.top_k is None:
        weighed = weighed.first(preset.top_k)
    weight_K = weighed.weight_K
    chosen = tuple(
        Chosen(
            id=catalogue.ids[i],
            version=catalogue.experts[i].version,
            weight=float(weight_K[k]),
            score=float(scores.score_E[i]),
            prior=float(weighed.prior_K[k]) if token else 0.0,
            fixed=token is not None and not _has_vectors(token, i, catalogue),
        )
        for k, i in enumerate(weighed.kept)
    )
    mode: Mode = "single" if len(chosen) == 1 else "token" if token else "merge"
    return Selection(
        mode=mode,
        experts=chosen,
        strength=weighed.strength,
        token_router=token if mode == "token" else None,
        top_k=wishes.top_k or preset.top_k,
        reason=reason_of(preset, mode, chosen, weighed, able),
    )
