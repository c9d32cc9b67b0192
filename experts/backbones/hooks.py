"""The sites of one copy of a model: forward hooks that put the mix in force into each.

The mix is the one piece of state a backbone owns. It is set under a lock by a scoped context that
refuses nesting and always clears. Knows nothing of requests or of how a mix was chosen.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from experts.errors import BackboneError
from experts.kernels import Lengths
from experts.kinds import Site
from experts.mix import Mix

LengthsOf = Callable[[str], Lengths | None]
"""How many of the flat tokens that a site sees are each row's; None where rows have equally many.

No tokens at all leave the site as it is: nobody reads what comes out of it.
"""


class SiteHooks:
    """Forward hooks on a module's sites that apply the mix in force, if there is one."""

    def __init__(self, model: nn.Module, sites: Mapping[str, Site]) -> None:
        self.sites = sites
        self._mix: Mix | None = None
        self._lengths_of: LengthsOf | None = None
        self._lock = threading.Lock()
        self._owner: int | None = None
        for name in sites:
            model.get_submodule(name).register_forward_hook(self._hook(name))

    @contextmanager
    def mixing(self, mix: Mix | None, lengths_of: LengthsOf | None = None) -> Generator[None]:
        """Put `mix` in force for the passes inside; None is the bare backbone.

        Args:
            lengths_of: for passes of flat tokens (1, N, D). Without it, sites see (B, T, D) with as
                many rows as the mix has.

        Raises:
            BackboneError: this thread is inside another mix already.
        """
        if self._owner == threading.get_ident():
            raise BackboneError("A mix is in force already; contexts do not nest.")
        with self._lock:
            self._owner, self._mix = threading.get_ident(), mix
            self._lengths_of = lengths_of
            try:
                yield
            finally:
                self._owner, self._mix, self._lengths_of = None, None, None

    def _hook(self, site: str):  # noqa: ANN202 - the type torch expects is private
        def apply(_module: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> Tensor | None:
            mix = self._mix
            x = args[0]
            if mix is None or mix.idle:
                return None
            x_ND, y_NO = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
            lengths = None
            if self._lengths_of is not None:
                lengths = self._lengths_of(site)
                if lengths is not None and not any(lengths):
                    return None
                _require_flat(site, len(x_ND), mix.size, lengths)
            elif x.shape[0] != mix.size:
                raise BackboneError(f"{site} sees {x.shape[0]} rows and the mix has {mix.size}.")
            return mix.apply(site, x_ND, y_NO, lengths).view(y.shape)

        return apply


def _require_flat(site: str, tokens: int, rows: int, lengths: Lengths | None) -> None:
    """Raise where flat tokens cannot be those of a mix's rows."""
    fits = tokens % rows == 0 if lengths is None else (len(lengths), sum(lengths)) == (rows, tokens)
    if not fits:
        raise BackboneError(f"{site} sees {tokens} tokens, which are not {rows} rows': {lengths}.")
