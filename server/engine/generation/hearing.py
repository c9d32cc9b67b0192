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


class Ear:
    """An `experts.token_routing.TokenRecorder` of one merge group of a running batch.

    A row is heard at the sites of its own experts alone: what stands beside it in the batch has
    others. A site that comes again begins another pass, and what was heard before it is forgotten.

    Args:
        references: of the stack's experts, in order. sites_B: those at which each row is heard.
    """

    def __init__(self, references: Sequence[str], sites_B: Sequence[Collection[str]]) -> None:
        self._references, self._sites_B = list(references), sites_B
        self._begin()

    def _begin(self) -> None:
        self._seen: set[str] = set()
        rows, experts = len(self._sites_B), len(self._references)
        self._sum_BE = torch.zeros(rows, experts)
        self._count_B = torch.zeros(rows)

    def __call__(self, site: str, use: Use) -> None:
        """Add the weights that each row's last token has at a site."""
        if site in self._seen:
            self._begin()
        self._seen.add(site)
        last = {row: span.stop - 1 for row, span in use.spans if site in self._sites_B[row]}
        if last:
            there = torch.tensor([*last])
            weight_NE = use.dense_weight_NE.detach()
            self._sum_BE[there] += weight_NE[[*last.values()]].float().cpu()
            self._count_B[there] += 1

    def take(self) -> list[Mapping[str, float]]:
        """The mean over sites of what each row weighs, by reference, where it weighs any."""
        mean_BE: Tensor = self._sum_BE / self._count_B.clamp_min(1).unsqueeze(1)
        self._begin()
        return [
            {ref: w for ref, w in zip(self._references, row, strict=True) if w > 0}
            for row in mean_BE.tolist()
        ]


def listening(mix: Mix, sites_B: Sequence[Collection[str]]) -> Mix:
    """A mix that is listened to; `sites_B`: see `Ear`."""
    groups = (replace(g, recorder=Ear(g.stack.ids, sites_B)) for g in mix.groups)
    return Mix(tuple(groups), mix.size)


def heard(mix: Mix) -> list[Mapping[str, float]]:
    """What each row of a mix weighed in its last pass, by reference.

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
