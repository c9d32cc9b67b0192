"""What a model of transformers is made of, found by watching one short pass of it.

Which modules attend, to themselves or to a source; what each layer keeps of a token; and which
sites see other tokens than the pass's own. So no family needs a table of names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from experts.backbones.hooks import RowsOf, SiteHooks
from experts.decoding.pages import LayerShape
from experts.decoding.passes import Attends
from experts.decoding.scores import Rule
from experts.errors import BackboneError
from experts.mix import Mix

OWN, SOURCE, KEPT = 3, 5, 1
"""Tokens of the pass that is watched: all different, so that a count tells what a site sees."""


@dataclass(frozen=True)
class Anatomy:
    """What a pass showed.

    Attributes:
        attentions: name of each attention module -> (it reads the source, its layer). own, source:
            what each layer keeps. source_sites: sites that see the source's tokens. kept_sites:
            those that see only the tokens whose logits are wanted. odd_sites: those that see some
            other choice of tokens, so that nobody knows whose they are.
    """

    attentions: Mapping[str, tuple[bool, int]]
    own: tuple[LayerShape, ...]
    source: tuple[LayerShape, ...]
    source_sites: frozenset[str]
    kept_sites: frozenset[str]
    odd_sites: frozenset[str]

    def layers(self, model: nn.Module) -> dict[int, tuple[bool, int]]:
        """The attention modules of one copy of the model, by identity."""
        return {id(model.get_submodule(name)): at for name, at in self.attentions.items()}


class _Watch:
    """Notes who attends to what, and keeps nothing."""

    def __init__(self) -> None:
        self.seen: list[tuple[nn.Module, LayerShape, int]] = []

    def attend(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, rule: Rule) -> Tensor:
        """See `Attends.attend`: zeros."""
        self.seen.append((module, LayerShape(k.shape[1], k.shape[3], v.shape[3]), k.shape[2]))
        return q.new_zeros(1, q.shape[2], q.shape[1], v.shape[3])


@dataclass(frozen=True, eq=False)
class _CountingMix(Mix):
    """A mix that changes nothing and counts the tokens of every site."""

    counts: dict[str, set[int]] = field(default_factory=dict)

    @property
    def idle(self) -> bool:
        """Never."""
        return False

    def apply(self, site: str, x_ND: Tensor, y_NO: Tensor, row_N: Tensor | None = None) -> Tensor:
        """See `Mix.apply`."""
        self.counts.setdefault(site, set()).add(len(x_ND))
        return y_NO


def study(model: nn.Module, hooks: SiteHooks, run: Callable[[Attends], object]) -> Anatomy:
    """Watch one pass.

    Args:
        run: makes a pass of `OWN` tokens over a source of `SOURCE`, if there is one, and asks for
            the logits of `KEPT`; hands on the flat pass it is given.

    Raises:
        BackboneError: the model does not attend through transformers' interface.
    """
    watch, mix = _Watch(), _CountingMix((), 1)
    whose: RowsOf = lambda _site, tokens: torch.zeros(tokens, dtype=torch.long)  # noqa: E731
    with torch.inference_mode(), hooks.mixing(mix, whose):
        run(watch)
    names = {id(module): name for name, module in model.named_modules()}
    own = [(names[id(m)], shape) for m, shape, keys in watch.seen if keys == OWN]
    source = [(names[id(m)], shape) for m, shape, keys in watch.seen if keys == SOURCE]
    if not own:
        raise BackboneError(
            f"{type(model).__name__} does not attend through transformers' attention interface; "
            "such models are not served."
        )

    def seeing(tokens: set[int]) -> frozenset[str]:
        return frozenset(site for site, seen in mix.counts.items() if seen == tokens)

    known = ({OWN}, {SOURCE}, {KEPT})
    odd = {site for site, seen in mix.counts.items() if seen not in known}
    return Anatomy(
        {name: (crosses, layer) for crosses, found in ((False, own), (True, source))
         for layer, (name, _) in enumerate(found)},
        tuple(shape for _, shape in own), tuple(shape for _, shape in source),
        seeing({SOURCE}), seeing({KEPT}), frozenset(odd),
    )  # fmt: skip
