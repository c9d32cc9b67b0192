"""Expert kinds: one file each, listed once here."""

from __future__ import annotations

from experts.errors import UnsupportedExpert
from experts.kinds.base import Adapter, Fitted, Kind, Site
from experts.kinds.bottleneck import Bottleneck
from experts.kinds.lora import Lora
from experts.weights import ExpertWeights

KINDS: dict[str, Kind] = {kind.name: kind for kind in (Lora(), Bottleneck())}

__all__ = ["KINDS", "Adapter", "Fitted", "Kind", "Site", "group_text", "kind_of"]


def kind_of(adapter: Adapter) -> Kind:
    """The kind that an adapter's config names.

    Raises:
        UnsupportedExpert: no kind serves its `peft_type`.
    """
    peft_type = adapter.config.get("peft_type")
    for kind in KINDS.values():
        if kind.peft_type == peft_type:
            return kind
    served = ", ".join(k.peft_type for k in KINDS.values())
    raise UnsupportedExpert(f"peft_type={peft_type!r} is not served; these are: {served}.")


def group_text(expert: ExpertWeights) -> str:
    """An expert's merge group as text; see `Kind.group_text`."""
    return KINDS[expert.kind].group_text(expert.sites)
