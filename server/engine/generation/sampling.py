"""From logits to tokens: every row by its own rules, and its own random numbers.

What a row draws depends on its logits and its seed alone, whoever else is in the batch.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from server.engine.generation.messages import Sampling, Written


@dataclass(eq=False)
class Drawing:
    """One row's rules, what it has read and written, and its random numbers.

    Attributes:
        ends: tokens that end its text.
    """

    sampling: Sampling
    prompt: Sequence[int]
    ends: frozenset[int] = frozenset()
    index: int = 0
    written: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        seed = self.sampling.seed
        self._random = torch.Generator()
        self._random.manual_seed(
            secrets.randbits(63) if seed is None else (seed + self.index) % 2**63
        )

    @property
    def changes_logits(self) -> bool:
        """Whether logits are changed before anything is drawn."""
        s = self.sampling
        return bool(
            s.logit_bias or s.presence_penalty or s.frequency_penalty
            or s.repetition_penalty != 1 or self._must_go_on
        )  # fmt: skip

    @property
    def _must_go_on(self) -> bool:
        return len(self.written) < self.sampling.min_tokens and bool(self.ends)

    def uniform(self) -> float:
        """The next random number, in [0, 1)."""
        return float(torch.rand((), generator=self._random, dtype=torch.float64))

    def change(self, logit_V: Tensor) -> Tensor:
        """Logits after bias and penalties."""
        s = self.sampling
        logit_V = logit_V.clone()
        if s.logit_bias:
            ids = _ids(s.logit_bias, logit_V)
            logit_V[ids] += torch.tensor(list(s.logit_bias.values())).to(logit_V)
        if s.repetition_penalty != 1:
            ids = _ids({*self.prompt, *self.written}, logit_V)
            known = logit_V[ids]
            by = s.repetition_penalty
            logit_V[ids] = torch.where(known < 0, known * by, known / by)
        if self.written and (s.presence_penalty or s.frequency_penalty):
            ids, count = torch.tensor(self.written, device=logit_V.device).unique(
                return_counts=True
            )
            logit_V[ids] -= s.presence_penalty + s.frequency_penalty * count.to(logit_V)
        if self._must_go_on:
            logit_V[_ids(self.ends, logit_V)] = -torch.inf
        return logit_V


def sound(logit_BV: Tensor) -> list[bool]:
    """Which rows have logits to draw from: a NaN anywhere, or nothing finite at all, spoils one."""
    return logit_BV.amax(dim=1).isfinite().tolist()


def draw(logit_BV: Tensor, rows: Sequence[Drawing]) -> list[Written | None]:
    """The next token of every row; None where its logits are not sound."""
    well = sound(logit_BV)
    if all(well):
        return [*_draw(logit_BV, rows)]
    kept = [i for i, is_sound in enumerate(well) if is_sound]
    drawn = iter(_draw(logit_BV[kept], [rows[i] for i in kept]) if kept else [])
    return [next(drawn) if is_sound else None for is_sound in well]


def _draw(logit_BV: Tensor, rows: Sequence[Drawing]) -> list[Written]:
    chosen_B = _choose(logit_BV, rows)
    told = [i for i, row in enumerate(rows) if row.sampling.logprobs is not None]
    found = [Written(token) for token in chosen_B]
    if told:
        logprob_BV = torch.log_softmax(logit_BV[told].double(), dim=1)
        for logprob_V, i in zip(logprob_BV, told, strict=True):
            found[i] = _told(chosen_B[i], logprob_V, rows[i].sampling.logprobs or 0)
    return found


def _choose(logit_BV: Tensor, rows: Sequence[Drawing]) -> list[int]:
    if any(row.changes_logits for row in rows):
        logit_BV = torch.stack([
            row.change(logit_V) if row.changes_logits else logit_V
            for logit_V, row in zip(logit_BV, rows, strict=True)
        ])  # fmt: skip
    chosen: list[int] = logit_BV.argmax(dim=1).tolist()
    drawn = [i for i, row in enumerate(rows) if row.sampling.temperature]
    if drawn:
        some = [rows[i] for i in drawn]
        for i, token in zip(drawn, _drawn(logit_BV[drawn], some), strict=True):
            chosen[i] = token
    return chosen


def _drawn(logit_BV: Tensor, rows: Sequence[Drawing]) -> list[int]:
    """Tokens drawn by the inverse of the distribution function, in float64."""
    p_BV = probabilities(logit_BV, [row.sampling for row in rows])
    upto_BV = p_BV.cumsum(dim=1)
    u_B = torch.tensor([row.uniform() for row in rows], dtype=torch.float64)
    target_B1 = (u_B.to(p_BV.device) * upto_BV[:, -1]).unsqueeze(1)
    token_B1 = torch.searchsorted(upto_BV, target_B1, right=True)
    return token_B1.clamp_max(p_BV.shape[1] - 1).flatten().tolist()


def probabilities(logit_BV: Tensor, rules: Sequence[Sampling]) -> Tensor:
    """What each row draws from, in float64: (B, V), not normalised; 0 where nothing may be drawn.

    Temperature first, then the best `top_k`, then of these the fewest that have `top_p` together,
    then those that have `min_p` of the best one's probability: the order of transformers.
    """

    def column(values: Iterable[float]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.float64, device=logit_BV.device).unsqueeze(1)

    # The best logit becomes 0 first: divided by a tiny temperature the others overflow to -inf.
    below_BV = logit_BV.double() - logit_BV.double().amax(dim=1, keepdim=True)
    p_BV = torch.softmax(below_BV / column(s.temperature for s in rules), dim=1)
    V = p_BV.shape[1]
    if any(s.top_k or s.top_p < 1 for s in rules):
        best_BV, order_BV = p_BV.sort(dim=1, descending=True, stable=True)
        rank_V = torch.arange(V, device=p_BV.device)
        best_BV = best_BV * (rank_V < column(s.top_k or V for s in rules))
        best_BV = best_BV / best_BV.sum(dim=1, keepdim=True)
        before_BV = best_BV.cumsum(dim=1) - best_BV
        best_BV = best_BV * (before_BV < column(s.top_p for s in rules))
        p_BV = torch.zeros_like(p_BV).scatter(1, order_BV, best_BV)
    if any(s.min_p for s in rules):
        least_B1 = column(s.min_p for s in rules) * p_BV.amax(dim=1, keepdim=True)
        p_BV = p_BV * (p_BV >= least_B1)
    return p_BV


def _told(token: int, logprob_V: Tensor, count: int) -> Written:
    best = logprob_V.topk(count) if count else None
    alternatives = (
        () if best is None else tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    )
    return Written(token, float(logprob_V[token]), alternatives)


def _ids(ids: Iterable[int], like: Tensor) -> Tensor:
    return torch.tensor(list(ids), dtype=torch.long, device=like.device)
