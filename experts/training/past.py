"""What an expert that learns after others brings along: where it starts, and what it must keep.

All of it is optional, and may be combined. An expert without a past starts afresh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from experts.backbones import Backbone
from experts.entries import WEIGHTS, Entry
from experts.loader import load_expert
from experts.training.course import Corpus
from experts.training.ewc import Anchor
from experts.weights import ExpertWeights


@dataclass(frozen=True, eq=False)
class Past:
    """What came before a training.

    Attributes:
        start: the expert whose tensors it starts from: continual initialisation (DAM, Cheng et al.
            2024). origin: what names these tensors for good.
        memory: examples of former tasks, for experience replay.
        anchors: former tasks, for elastic weight consolidation at `strength`.
    """

    start: ExpertWeights | None = None
    origin: str = ""
    memory: Sequence[Corpus] = ()
    anchors: Sequence[Anchor] = ()
    strength: float = 0.0

    @property
    def told(self) -> Mapping[str, str]:
        """What a manifest's provenance says of it: equal for equal pasts, empty for none."""
        said = {
            "start": self.origin,
            "memory": ", ".join(f"{len(c.examples)} of {c.card.id}" for c in self.memory),
            "ewc": f"{self.strength:g} x {len(self.anchors)} tasks" if self.anchors else "",
        }
        return {key: text for key, text in said.items() if text}


TOLD = ("start", "memory", "ewc")
"""What of a manifest's provenance is of the past (`Past.told`)."""
AFRESH = Past()
"""No past: fresh tensors, and one loss."""


def start_of(entry: Entry, backbone: Backbone) -> tuple[ExpertWeights, str]:
    """An expert of a library as the start of another: its tensors, and their origin.

    Raises:
        BadExpert: it cannot be loaded.
    """
    loaded = load_expert(entry, backbone.sites, dtype=torch.float32, device=backbone.device)
    return loaded, f"{entry.id} {entry.manifest.files[WEIGHTS]}"
