"""What tokens chose, for the full trace: per site the mean weights, and the first tokens' best.

Bounded: the trace of a long input is not longer than that of a short one.
"""

from __future__ import annotations

from collections.abc import Sequence

from experts.kernels import Use
from experts.versions import parse_reference
from server.engine.messages import TokenTrace

SHOWN_TOKENS = 16


class SiteRecorder:
    """An `experts.token_routing.TokenRecorder` of a pass with one row.

    Args:
        references: of the stack's experts, in order. The trace names their ids, and the versions
            too where two of one expert act side by side.
    """

    def __init__(self, references: Sequence[str]) -> None:
        ids = [parse_reference(ref)[0] for ref in references]
        self._ids = ids if len({*ids}) == len(ids) else list(references)
        self._traces: list[TokenTrace] = []

    @property
    def traces(self) -> tuple[TokenTrace, ...]:
        """One per site, in the order of the pass."""
        return tuple(self._traces)

    def __call__(self, site: str, use: Use) -> None:
        """Note one site's weights."""
        weight_NE = use.dense_weight_NE
        mean_E = weight_NE.mean(dim=0).tolist()
        used = {id: round(w, 4) for id, w in zip(self._ids, mean_E, strict=True) if w > 0}
        best = weight_NE[:SHOWN_TOKENS].max(dim=1)
        tokens = tuple(
            (n, self._ids[int(e)], round(float(w), 4))
            for n, (e, w) in enumerate(zip(best.indices, best.values, strict=True))
        )
        ranked = dict(sorted(used.items(), key=lambda item: -item[1]))
        self._traces.append(TokenTrace(site, ranked, tokens))
