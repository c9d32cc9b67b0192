"""Frozen backbones: one file per family, opened by `open_backbone`.

A backbone is named by a local folder, a hub id, `demo` (the packaged all-MiniLM-L6-v2) or
`tiny-random` (a fake as a product: no weights needed).
"""

from __future__ import annotations

from experts.backbones.base import Backbone
from experts.backbones.demo import demo_path
from experts.backbones.text_encoder import TextEncoder
from experts.backbones.tiny import tiny_encoder

__all__ = ["Backbone", "TextEncoder", "open_backbone"]


def open_backbone(name: str, device: str = "cpu") -> Backbone:
    """Load the backbone that `name` stands for.

    Raises:
        BackboneError: it cannot be loaded.
    """
    if name == "tiny-random":
        return tiny_encoder()
    if name == "demo":
        return TextEncoder.load(demo_path(), id="all-MiniLM-L6-v2", device=device)
    return TextEncoder.load(name, device=device)
