"""A forward pass that ends at a chosen layer: its states, and none of the work after it."""

from __future__ import annotations

from types import TracebackType

from torch import Tensor, nn


class _Reached(Exception):
    """Raised inside the model once the layer is done."""


class HalfWay:
    """Inside this context a pass stops after `layer`; afterwards `states_BTD` holds its output.

    Only one pass may run inside, and the caller holds the backbone's lock.
    """

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer
        self.states_BTD: Tensor | None = None

    def __enter__(self) -> HalfWay:
        self._handle = self._layer.register_forward_hook(self._stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:  # fmt: skip
        self._handle.remove()
        return isinstance(error, _Reached)

    def _stop(self, module: nn.Module, args: tuple[Tensor, ...], output: object) -> None:
        self.states_BTD = output[0] if isinstance(output, tuple) else output  # type: ignore[assignment]
        raise _Reached


def middle_layer(model: nn.Module) -> nn.Module:
    """The layer half-way up the longest stack of equal layers."""
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
    layers = max(stacks, key=len)
    return layers[max(0, len(layers) // 2 - 1)]
