"""Linear layers with weights laid out once for the CPU's matrix kernels.

A frozen weight never changes, so oneDNN's blocked layout can be made at load time; a pass is then
1.1 to 1.7 times as fast (`benchmarks/README.md`). The same product in float32, to rounding.
Whatever the layout is not for (gradients, other types, other devices) goes the usual way.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

TYPICAL_TOKENS = 640  # tokens of a batch the layout is tuned to; others only cost a little


class PackedLinear(nn.Linear):
    """A frozen linear layer that keeps its weight a second time, packed."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(1, 1, device="meta")
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(
            linear.weight.detach(), TYPICAL_TOKENS
        )

    def forward(self, input: Tensor) -> Tensor:
        """`input W^T + b`."""
        if torch.is_grad_enabled() or input.dtype != torch.float32:
            return super().forward(input)
        return torch.ops.mkldnn._linear_pointwise(input, self._packed, self.bias, "none", [], "")


def pack_linears(model: nn.Module) -> None:
    """Replace a frozen float32 CPU model's linear layers by packed ones, where torch can."""
    weight = next(model.parameters())
    able = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if not able or weight.dtype != torch.float32 or weight.device.type != "cpu":
        return
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear:
            model.set_submodule(name, PackedLinear(module))
