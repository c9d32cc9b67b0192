"""Imported once by the process that servers are forked from: what a start imports and compiles."""

import torch

from experts.backbones.tiny import tiny_causal, tiny_encoder
from experts.kernels import fused

torch.set_num_threads(1)  # no threads are there to be lost in a fork
tiny_encoder()
tiny_causal()
fused.prepare(torch.float32)
