"""Who sends a request, as far as the server knows: made once by the gate and read by the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experts.scope import EVERYTHING, Scope
from server.access.keys import PERMISSIONS, Key, Permission

CALLER = "sailplane.caller"
"""Key of the ASGI scope under which the `Caller` stands."""
NEEDED = "sailplane.needed"
"""Key of the ASGI scope: the permission that the request needs."""


@dataclass(frozen=True)
class Caller:
    """One caller.

    Attributes:
        key: what it showed; None where the server has no keys. permissions: what it may do.
        scope: the experts it may use.
    """

    key: Key | None = None
    permissions: frozenset[Permission] = PERMISSIONS
    scope: Scope = EVERYTHING

    @property
    def name(self) -> str | None:
        """That of its key, for logs and metrics."""
        return self.key and self.key.name

    def may(self, permission: Permission) -> bool:
        """Whether it may do this."""
        return permission in self.permissions


ANYONE = Caller()
"""Every caller of a server without keys."""


def caller_of(scope: Mapping[str, Any]) -> Caller:
    """The caller of the request with this ASGI scope."""
    return scope.get(CALLER, ANYONE)
