"""An expert whose tensors take gradients, alone in the mix: what is trained, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from experts.mix import Mix, RowMix, build_mix
from experts.stacks import stack_experts
from experts.weights import ExpertWeights


class Leaves:
    """A copy of an expert's tensors as leaves, in float32.

    Attributes:
        expert: the copy. tensors: its leaves, in a fixed order.
    """

    def __init__(self, expert: ExpertWeights) -> None:
        sites = {
            site: {
                part: t.detach().to(torch.float32, copy=True).requires_grad_()
                for part, t in parts.items()
            }
            for site, parts in expert.sites.items()
        }
        self.expert = ExpertWeights(expert.id, expert.kind, expert.group, sites)
        self.tensors = [t for parts in sites.values() for t in parts.values()]

    def mix(self, rows: int) -> Mix:
        """The expert at weight 1 on every row."""
        return build_mix([RowMix.of({self.expert.id: 1.0})] * rows, [stack_experts([self.expert])])

    def shaped(self, tensors: Sequence[Tensor]) -> dict[str, dict[str, Tensor]]:
        """One tensor for each leaf, by site and part."""
        left = iter(tensors)
        return {
            site: {part: next(left) for part in parts} for site, parts in self.expert.sites.items()
        }

    def trained(self) -> ExpertWeights:
        """The expert as it is now, without gradients."""
        sites = self.shaped([t.detach() for t in self.tensors])
        return ExpertWeights(self.expert.id, self.expert.kind, self.expert.group, sites)
