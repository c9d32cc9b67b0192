"""What every frozen backbone offers: sites, a fingerprint, and passes with a mix in force.

The mix is the one piece of state a backbone owns. It is set under a lock by a scoped context that
refuses nesting and always clears. Knows nothing of requests or of how a mix was chosen.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from experts.errors import BackboneError
from experts.kinds import Site
from experts.mix import Mix


class SiteHooks:
    """Forward hooks on a module's sites that apply the mix in force, if there is one."""

    def __init__(self, model: nn.Module, sites: Mapping[str, Site]) -> None:
        self.sites = sites
        self._mix: Mix | None = None
        self._lock = threading.Lock()
        self._owner: int | None = None
        for name in sites:
            model.get_submodule(name).register_forward_hook(self._hook(name))

    @contextmanager
    def mixing(self, mix: Mix | None) -> Generator[None]:
        """Put `mix` in force for the passes inside; None is the bare backbone.

        Raises:
            BackboneError: this thread is inside another mix already.
        """
        if self._owner == threading.get_ident():
            raise BackboneError("A mix is in force already; contexts do not nest.")
        with self._lock:
            self._owner, self._mix = threading.get_ident(), mix
            try:
                yield
            finally:
                self._owner, self._mix = None, None

    def _hook(self, site: str):  # noqa: ANN202 - the type torch expects is private
        def apply(_module: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> Tensor | None:
            mix = self._mix
            if mix is None or mix.idle:
                return None
            x = args[0]
            if x.shape[0] != mix.size:
                raise BackboneError(f"{site} sees {x.shape[0]} rows and the mix has {mix.size}.")
            x_ND, y_NO = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
            return mix.apply(site, x_ND, y_NO).view(y.shape)

        return apply


def fingerprint(model: nn.Module) -> str:
    """sha256 over the names, types, shapes and bytes of all weights, in order of name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
