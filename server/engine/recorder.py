"""What tokens chose, for the trace: per site the mean weights, and the first tokens' best.

Bounded: the trace of a long input is not longer than that of a short one. Only who asks for all
tokens gets every weight of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from experts.kernels import Use
from experts.versions import parse_reference
from server.engine.messages import TokenTrace

SHOWN_TOKENS = 16
DIGITS = 4

First = Callable[[str], int]
"""The place, among all tokens, of the first that a site sees."""


class SiteRecorder:
    """An `experts.token_routing.TokenRecorder` of a pass with one row.

    Args:
        references: of the stack's experts, in order.
        whole: whether to keep every expert's weight at every token. first: where a site's tokens
            begin; most sites see all of them.
    """

    def __init__(
        self, references: Sequence[str], *, whole: bool = False, first: First = lambda _: 0
    ) -> None:
        self._ids = names_of(references)
        self._whole, self._first = whole, first
        self._traces: list[TokenTrace] = []

    @property
    def traces(self) -> tuple[TokenTrace, ...]:
        """One per site, in the order of the pass."""
        return tuple(self._traces)

    def __call__(self, site: str, use: Use) -> None:
        """Note one site's weights."""
        weight_NE = use.dense_weight_NE
        mean_E = weight_NE.mean(dim=0).tolist()
        used = {id: mean for id, mean in zip(self._ids, mean_E, strict=True) if mean > 0}
        best = weight_NE[:SHOWN_TOKENS].max(dim=1)
        tokens = tuple(
            (n, self._ids[int(e)], round(float(w), DIGITS))
            for n, (e, w) in enumerate(zip(best.indices, best.values, strict=True))
        )
        ranked = sorted(used.items(), key=lambda item: -item[1])
        experts = {id: round(mean, DIGITS) for id, mean in ranked}
        weights, first = dict[str, tuple[float, ...]](), 0
        if self._whole:
            columns_EN = rounded(weight_NE[:, [self._ids.index(id) for id in experts]].T)
            weights = {id: tuple(c) for id, c in zip(experts, columns_EN.tolist(), strict=True)}
            first = self._first(site)
        self._traces.append(TokenTrace(site, experts, tokens, weights, first))


def rounded(weight: Tensor) -> Tensor:
    """Weights to as many digits as are told, in double precision: 0.3 and not 0.30000001."""
    return weight.double().mul(10**DIGITS).round().div(10**DIGITS)


def names_of(references: Sequence[str]) -> list[str]:
    """What a trace calls experts: ids, or references where two versions of one act side by side."""
    ids = [parse_reference(ref)[0] for ref in references]
    return ids if len({*ids}) == len(ids) else list(references)
