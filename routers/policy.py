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
from routers.request import Scores
from routers.types import Chosen, Mode, Selection

# A candidate this far behind in prior is left out. Gate scores lie within +-sqrt(d): at the demo
# backbone's sites of 384 features two differ by 39.2 at most, so no token could choose it there. At
# the 6 sites of 1536 features they may differ by 78.4, so one could; the widest difference seen
# there is 24.5 (all 18 experts, ten sentences).
HOPELESS = 40.0
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
    limit = _limit(preset, wishes)
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
        return _fall_back("no_expert", "No expert of the library may answer.")
    # Who wants all experts asks nobody to fit.
    if not preset.wants_all and scores.fit is not None and scores.fit < 0:
        reason = f"No expert fits: the best match is {-scores.fit:.3f} below what a match needs."
        return _fall_back("no_fit", reason)
    fitting, dropped = _one_group(able, catalogue)
    kept = fitting[: _limit(preset, wishes)]
    token = _token_router(preset, wishes)
    count = len(able) if catalogue.whole == len(catalogue) else catalogue.whole
    decision = _weigh(preset, token, kept, count, scores, catalogue, calibration, wishes)
    narrowed = preset.wants_all and len(kept) < count
    return replace(decision, narrowed=narrowed, dropped=dropped)


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


def _one_group(ranked: Sequence[int], catalogue: Catalogue) -> tuple[list[int], dict[str, str]]:
    """Experts merge only within a group: keep the best expert's, and say who was dropped."""
    group_E = [e.group for e in catalogue.experts]
    best = group_E[ranked[0]]
    kept = [i for i in ranked if group_E[i] == best]
    other = [i for i in ranked if group_E[i] != best]
    return kept, {
        catalogue.ids[i]: f"merge group {group_E[i]} differs from {best}"
        for i in other[:NAMED_DROPPED]
    }


def _has_vectors(token: str, i: int, catalogue: Catalogue) -> bool:
    """Whether the token router can score an expert, or it must keep its weight at every token."""
    return token in catalogue.experts[i].artefacts.vectors


def _limit(preset: Preset, wishes: Wishes) -> int:
    """How many experts a sample may use; in token mode top_k is per token, not per sample."""
    token = _token_router(preset, wishes) is not None
    return preset.experts if token or wishes.top_k is None else wishes.top_k


def _token_router(preset: Preset, wishes: Wishes) -> str | None:
    """The caller's mode stands over the preset's."""
    if wishes.mode == "merge":
        return None
    return preset.token or ("gate" if wishes.mode == "token" else None)


def _weigh(
    preset: Preset, token: str | None, kept: Sequence[int], able: int, scores: Scores,
    catalogue: Catalogue, calibration: Calibration, wishes: Wishes,
) -> Decision:  # fmt: skip
    """Weights, priors and mode of the experts kept of those able to answer."""
    score_K = scores.score_E[list(kept)].double()
    best, rivals = float(score_K[0]), len(kept) - 1
    alpha = calibration.alpha(best) if preset.rule == "global" else None
    scale = alpha if alpha is not None else _scale(preset)
    prior_K = score_K * scale
    confidence = best if preset.rule == "global" else None
    if token is not None:
        alive = [k for k in range(len(kept)) if float(prior_K[0] - prior_K[k]) <= HOPELESS]
        kept, prior_K = [kept[k] for k in alive], prior_K[alive]
        if not any(_has_vectors(token, i, catalogue) for i in kept):
            token = None  # the request decides alone
    if token is None and alpha is not None and len(kept) > 2 and wishes.top_k is None:
        kept, prior_K = kept[: preset.top_k], prior_K[: preset.top_k]
    weight_K = torch.softmax(prior_K, dim=0)
    chosen = tuple(
        Chosen(
            id=catalogue.ids[i],
            version=catalogue.experts[i].version,
            weight=float(weight_K[k]),
            score=float(scores.score_E[i]),
            prior=float(prior_K[k]) if token else 0.0,
            fixed=token is not None and not _has_vectors(token, i, catalogue),
        )
        for k, i in enumerate(kept)
    )
    mode: Mode = "single" if len(chosen) == 1 else "token" if token else "merge"
    selection = Selection(
        mode=mode,
        experts=chosen,
        token_router=token if mode == "token" else None,
        top_k=wishes.top_k or preset.top_k,
        reason=_reason(preset, mode, chosen, alpha, able, rivals),
    )
    return Decision(selection, alpha, confidence)


def _scale(preset: Preset) -> float:
    """What a score is multiplied by to become a logit of the mix."""
    return 1 / preset.temperature if preset.rule == "softmax" else 0.0


def _reason(
    preset: Preset,
    mode: Mode,
    chosen: Sequence[Chosen],
    alpha: float | None,
    able: int,
    rivals: int,
) -> str:
    """In a sentence; `rivals` might have answered beside the first, had they come near."""
    if preset.wants_all:
        return _reason_of_all(preset, mode, chosen, able)
    first = chosen[0]
    if mode == "single":
        if not rivals:
            return f"{first.id} is the best by {preset.request}: it scores {first.score:.2f}."
        return f"{first.id} scores {first.score:.2f} and no other expert comes near."
    names = ", ".join(c.id for c in chosen[:3])
    if mode == "token":
        rule = f" under alpha = {alpha:g}" if alpha is not None else ""
        return f"Each token chooses among {len(chosen)} candidates{rule}: {names}, ..."
    return f"The best {len(chosen)} by {preset.request} are merged: {names}."


def _reason_of_all(preset: Preset, mode: Mode, chosen: Sequence[Chosen], able: int) -> str:
    """For a preset that wants all experts: how many of those able it got, and who ranked them."""
    first, count = chosen[0].id, "all" if len(chosen) == able else str(len(chosen))
    if able == 1:
        return f"{first} is the only expert that may answer."
    by = f", ranked by {preset.request}" if preset.request != "uniform" else ""
    if mode == "single":
        return f"Of {able} experts{by}, {first} answers alone: no other may be mixed with it."
    names = ", ".join(c.id for c in chosen[:3])
    role = "candidates of every token" if mode == "token" else "merged at equal weight"
    return f"Of {able} experts{by}, {count} are {role}: {names}{', ...' if len(chosen) > 3 else ''}"


def _fall_back(code: str, reason: str) -> Decision:
    return Decision(Selection(mode="base", reason=reason), confidence=0.0, fallback=code)
