"""Token routers: each scores a row's candidates for every token at every site.

They implement `experts.token_routing.TokenRouter`, which is where the layers inside the backbone
meet them.
"""

from __future__ import annotations

from experts.token_routing import TokenRouter
from routers.token.arrow import ArrowRouter
from routers.token.constant import ConstantRouter
from routers.token.gate import GateRouter

TOKEN_ROUTERS: dict[str, TokenRouter] = {
    "gate": GateRouter(),
    "arrow": ArrowRouter(),
    "constant": ConstantRouter(),
}

__all__ = ["TOKEN_ROUTERS"]
