"""The contract of an expert kind: how its tensors are read, stacked, applied and merged.

A kind is stateless. It sees tensors and sites, never files, requests or routers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from experts.kernels import Use
from experts.weights import ExpertWeights, SiteTensors


@dataclass(frozen=True)
class Site:
    """A named module of the backbone that an expert may change.

    `reaches_output` is False for a module whose output is thrown away, such as the pooler's
    dense layer under mean pooling. `residual` marks a projection that writes into the residual
    stream (attention output, feed-forward output): the places of bottleneck adapters.
    """

    name: str
    in_features: int
    out_features: int
    reaches_output: bool = True
    residual: bool = False


@dataclass(frozen=True)
class Adapter:
    """An adapter in file form: PEFT's `adapter_config.json` and its tensors by full name."""

    config: Mapping[str, object]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Fitted:
    """An adapter's tensors at the sites they belong to, in the file's own numbers.

    Attributes:
        expert: the expert. scales: (site, part) -> what that tensor is multiplied by for use.
    """

    expert: ExpertWeights
    scales: Mapping[tuple[str, str], float] = field(default_factory=dict)


class Kind(ABC):
    """How one sort of expert changes a backbone."""

    name: ClassVar[str]
    peft_type: ClassVar[str]
    """`peft_type` in the adapter's config that says the adapter is of this kind."""

    @abstractmethod
    def fit(self, adapter: Adapter, sites: Mapping[str, Site], id: str) -> Fitted:
        """Tensors by site, in the form `apply` takes but for their scales.

        Raises:
            UnsupportedExpert: the adapter uses a feature that is not served.
            MismatchedExpert: names or shapes do not fit the sites.
            CorruptExpert: a tensor holds NaN or infinity.
        """

    @abstractmethod
    def write(self, expert: ExpertWeights) -> Adapter:
        """The file form of `expert`; `fit` of it, with its scales, gives `expert` again."""

    @abstractmethod
    def target_sites(self, sites: Iterable[Site]) -> list[Site]:
        """The sites a new expert of this kind changes by default."""

    @abstractmethod
    def initial(
        self, sites: Iterable[Site], *, rank: int, generator: torch.Generator
    ) -> dict[str, dict[str, Tensor]]:
        """Fresh tensors for training: their effect on the backbone is nil (or tiny)."""

    @abstractmethod
    def group(self, sites: Mapping[str, SiteTensors]) -> Hashable:
        """Experts merge only within one group."""

    @abstractmethod
    def group_text(self, sites: Mapping[str, SiteTensors]) -> str:
        """`group` as text, for manifests; it opens with the kind's name.

        Equal texts for equal groups, in every release, and for no others.
        """

    @abstractmethod
    def stack(self, per_expert: Sequence[SiteTensors | None]) -> dict[str, Tensor]:
        """One site's tensors of E experts with a leading E axis; None is an expert not there."""

    @abstractmethod
    def apply(
        self, y_NO: Tensor, x_ND: Tensor, stack: Mapping[str, Tensor], use: Use,
        strength_B: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """The module's output with the experts' effect: the hot path.

        Args:
            y_NO: output of the frozen module; may be overwritten where gradients are off.
            x_ND: its input. stack: from `stack`.
            use: experts and weights per token; weights of a token sum to 1, or all are 0.
            strength_B: scales the merged expert's output, per row; None is 1 for all.
        """

    def input_rows(self, tensors: SiteTensors) -> Tensor | None:
        """The rows (R, D) that a linear update reads a site's input by; None for other kinds.

        Directions of the input are stored as coefficients of them (`experts.directions`).
        """
        return None

    @abstractmethod
    def merge(self, experts: Sequence[ExpertWeights], weights: Sequence[float]) -> ExpertWeights:
        """The one expert that acts as the weighted mix does."""
