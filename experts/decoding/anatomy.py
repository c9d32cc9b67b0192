"""What a model of transformers is made of, found by watching one short pass of it.

Which modules attend, to themselves or to a source; what each layer keeps of a token; and which
sites see other tokens than the pass's own. So no family needs a table of names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from experts.backbones.hooks import SiteHooks
from experts.decoding.pages import LayerShape
from experts.decoding.passes import Attends
from experts.decoding.scores import Rule
from experts.errors import BackboneError
from experts.kernels import Lengths
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
            other choice of tokens, so that nobody knows whose they are. siblings: site -> the
            sites that are given the very same tensor, itself among them.
    """

    attentions: Mapping[str, tuple[bool, int]]
    own: tuple[LayerShape, ...]
    source: tuple[LayerShape, ...]
    source_sites: frozenset[str]
    kept_sites: frozenset[str]
    odd_sites: frozenset[str]
    siblings: Mapping[str, tuple[str, ...]]

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
    """A mix that changes nothing, counts the tokens of every site, and keeps them."""

    counts: dict[str, set[int]] = field(default_factory=dict)
    given: dict[str, list[tuple[Tensor, float]]] = field(default_factory=dict)
    """Alive, so that no other tensor takes the memory of one; with the sum of each."""

    @property
    def idle(self) -> bool:
        """Never."""
        return False

    def apply(
        self, site: str, x_ND: Tensor, y_NO: Tensor, lengths: Lengths | None = None
    ) -> Tensor:
        """See `Mix.apply`."""
        self.counts.setdefault(site, set()).add(len(x_ND))
        self.given.setdefault(site, []).append((x_ND, float(x_ND.sum())))
        return y_NO

    def siblings(self) -> dict[str, tuple[str, ...]]:
        """Site -> the sites that were given what it was given, in one pass."""
        by_memory: dict[object, list[str]] = {}
        for site, given in self.given.items():
            # Their sum as well: a module might write over what it has read.
            place = tuple((x.data_ptr(), x.shape, total) for x, total in given)
            by_memory.setdefault(place, []).append(site)
        return {site: tuple(sites) for sites in by_memory.values() for site in sites}


def study(model: nn.Module, hooks: SiteHooks, run: Callable[[Attends, int], Tensor]) -> Anatomy:
    """Watch one pass, and see by another that tokens meet in attention alone.

    Args:
        run: makes a pass of `OWN` tokens over a source of `SOURCE`, if there is one, and asks for
            the logits of `KEPT`; hands on the flat pass it is given. The first token differs with
            the number it is given. Gives logits, those of the last token at the end.

    Raises:
        BackboneError: the model does not attend through transformers' interface, or keeps
            something of its tokens elsewhere (state-space layers, convolutions).
    """
    watch, mix = _Watch(), _CountingMix((), 1)
    with torch.inference_mode(), hooks.mixing(mix, lambda _site: None):
        logit_V = run(watch, 0)[-1]
    names = {id(module): name for name, module in model.named_modules()}
    own = [(names[id(m)], shape) for m, shape, keys in watch.seen if keys == OWN]
    source = [(names[id(m)], shape) for m, shape, keys in watch.seen if keys == SOURCE]
    if not own:
        raise BackboneError(
            f"{type(model).__name__} does not attend through transformers' attention interface; "
            "such models are not served."
        )

    with torch.inference_mode():
        other_V = run(_Watch(), 1)[-1]
    noise = 32 * torch.finfo(logit_V.dtype).eps * logit_V.abs().max()
    if bool((logit_V - other_V).abs().max() > noise):
        raise BackboneError(
            f"{type(model).__name__} carries its tokens on by more than attention (state-space "
            "layers, convolutions); such models are not served."
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
        mix.siblings(),
    )  # fmt: skip
