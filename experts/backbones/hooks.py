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
from experts.kinds import Site
from experts.mix import Mix

RowsOf = Callable[[str, int], Tensor | None]
"""The row (N,) of each of the N tokens that a site sees; None where each is a row, in order.

No rows at all (0,) leave the site as it is: nobody reads what comes out of it.
"""


class SiteHooks:
    """Forward hooks on a module's sites that apply the mix in force, if there is one."""

    def __init__(self, model: nn.Module, sites: Mapping[str, Site]) -> None:
        self.sites = sites
        self._mix: Mix | None = None
        self._rows_of: RowsOf | None = None
        self._lock = threading.Lock()
        self._owner: int | None = None
        for name in sites:
            model.get_submodule(name).register_forward_hook(self._hook(name))

    @contextmanager
    def mixing(self, mix: Mix | None, rows_of: RowsOf | None = None) -> Generator[None]:
        """Put `mix` in force for the passes inside; None is the bare backbone.

        Args:
            rows_of: for passes of flat tokens (1, N, D). Without it, sites see (B, T, D) with as
                many rows as the mix has.

        Raises:
            BackboneError: this thread is inside another mix already.
        """
        if self._owner == threading.get_ident():
            raise BackboneError("A mix is in force already; contexts do not nest.")
        with self._lock:
            self._owner, self._mix, self._rows_of = threading.get_ident(), mix, rows_of
            try:
                yield
            finally:
                self._owner, self._mix, self._rows_of = None, None, None

    def _hook(self, site: str):  # noqa: ANN202 - the type torch expects is private
        def apply(_module: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> Tensor | None:
            mix = self._mix
            x = args[0]
            if mix is None or mix.idle:
                return None
            x_ND, y_NO = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
            row_N = self._rows_of(site, len(x_ND)) if self._rows_of else None
            if row_N is not None and not len(row_N):
                return None
            if row_N is None and (len(x_ND) if self._rows_of else x.shape[0]) != mix.size:
                raise BackboneError(f"{site} sees {x.shape[0]} rows and the mix has {mix.size}.")
            return mix.apply(site, x_ND, y_NO, row_N).view(y.shape)

        return apply
