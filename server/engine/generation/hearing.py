"""Who writes each token: what the experts weigh, over all sites, in the pass that chose it.

Listens to passes in which a row asked for it, and to no others. Chooses nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from experts.kernels import Use
from experts.mix import Mix
from server.engine.recorder import DIGITS, names_of


class Ear:
    """An `experts.token_routing.TokenRecorder` of one merge group of a running batch.

    Args:
        references: of the stack's experts, in order. passing: sites that it passes over, since
            they see other tokens than those that are written.
    """

    def __init__(self, references: Sequence[str], passing: Collection[str] = frozenset()) -> None:
        self._ids, self._passing = names_of(references), passing
        self._sum_BE: Tensor | None = None
        self._sites_B: Tensor | None = None

    def __call__(self, site: str, use: Use) -> None:
        """Add the weights that each row's last token has at a site."""
        if site in self._passing:
            return
        if self._sum_BE is None or self._sites_B is None:
            self._sum_BE = use.weight.new_zeros(use.rows, use.experts)
            self._sites_B = use.weight.new_zeros(use.rows)
        rows = [row for row, _ in use.spans]
        if rows:
            there = torch.tensor(rows, device=use.weight.device)
            last = torch.tensor([span.stop - 1 for _, span in use.spans], device=there.device)
            self._sum_BE.index_add_(0, there, use.dense_weight_NE[last])
            self._sites_B[there] += 1

    def take(self) -> list[Mapping[str, float]]:
        """The mean over sites of each row's weights since the last time, of those that have any."""
        if self._sum_BE is None or self._sites_B is None:
            return []
        mean_BE = self._sum_BE / self._sites_B.clamp_min(1).unsqueeze(1)
        self._sum_BE = self._sites_B = None
        return [
            {id: round(w, DIGITS) for id, w in zip(self._ids, row, strict=True) if w > 0}
            for row in mean_BE.tolist()
        ]


def listening(mix: Mix, passing: Collection[str]) -> Mix:
    """A mix that is listened to; `passing`: see `Ear`."""
    groups = (replace(g, recorder=Ear(list(g.stack.index), passing)) for g in mix.groups)
    return Mix(tuple(groups), mix.size)


def heard(mix: Mix) -> list[Mapping[str, float]]:
    """What each row of a mix weighed since the last time; nothing of one without weights by token.

    Raises:
        TypeError: nobody listens to it.
    """
    found: list[Mapping[str, float]] = [{} for _ in range(mix.size)]
    for group in mix.groups:
        if not isinstance(group.recorder, Ear):
            raise TypeError("nobody listens to this mix")
        for row, told in enumerate(group.recorder.take()):
            found[row] = {**found[row], **told}
    return found
