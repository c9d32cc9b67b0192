"""A forward pass that ends at a chosen layer: states on the way there, and no work after it."""

from __future__ import annotations

from types import TracebackType

from torch import Tensor, nn


class _Reached(Exception):
    """Raised inside the model once the last layer of interest is done."""


class HalfWay:
    """Inside this context a pass stops after `last`; then `states` holds what was met on the way.

    Only one pass may run inside, and the caller holds the backbone's lock.

    Attributes:
        states: what goes into `first` and what comes out of `last`, (B, T, D) each; fewer where
            the pass did not come so far.
    """

    def __init__(self, first: nn.Module, last: nn.Module) -> None:
        self._first, self._last = first, last
        self.states: list[Tensor] = []

    def __enter__(self) -> HalfWay:
        self._handles = (
            self._first.register_forward_pre_hook(self._begin),
            self._last.register_forward_hook(self._stop),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:  # fmt: skip
        for handle in self._handles:
            handle.remove()
        return isinstance(error, _Reached)

    def _begin(self, module: nn.Module, args: tuple[object, ...]) -> None:
        self.states.append(args[0])  # type: ignore[arg-type]

    def _stop(self, module: nn.Module, args: tuple[Tensor, ...], output: object) -> None:
        self.states.append(output[0] if isinstance(output, tuple) else output)  # type: ignore[arg-type]
        raise _Reached


def lower_half(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The first layer of the longest stack of equal layers, and the one half-way up."""
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
    layers = max(stacks, key=len)
    return layers[0], layers[max(0, len(layers) // 2 - 1)]
