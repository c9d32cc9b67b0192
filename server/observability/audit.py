"""The audit log: a JSON line for every call that changes the server's library, refused ones too.

Who, what, when, and how it ended; never the text of a request. Lines go to the server's log and,
where an operator names one, to a file of their own, which may be moved away while the server runs.
"""

from __future__ import annotations

import json
import logging
import time
from logging.handlers import WatchedFileHandler
from pathlib import Path

from starlette.types import Scope

from server.access.caller import NEEDED, caller_of
from server.access.rules import ADMIN
from server.access.sites import LOOKING

log = logging.getLogger("sailplane.audit")

LONGEST = 256
"""Characters of one name in a line."""
ABOUT = "sailplane.about"
"""Key of the ASGI scope: what a handler tells of an administrator's call (names, no text)."""


def audit_to(path: Path) -> None:
    """Write audit lines to a file as well, whatever the level of the server's log.

    Raises:
        OSError: it cannot be written.
    """
    handler = WatchedFileHandler(path)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)


def about(scope: Scope, **names: object) -> None:
    """Have the audit line of a request say more than its path does."""
    scope[ABOUT] = {n: v[:LONGEST] if isinstance(v, str) else v for n, v in names.items()}


def audit(scope: Scope, request_id: str, status: int, error: str | None) -> None:
    """Tell of an answered request, if it needed an administrator to change something."""
    if scope.get(NEEDED) != ADMIN or "route" not in scope or scope["method"] in LOOKING:
        return
    client = scope.get("client")
    line = {
        "time": round(time.time(), 3),
        "event": "audit",
        "request_id": request_id,
        "key": caller_of(scope).name,
        "client": client[0] if client else None,
        "method": scope["method"],
        "route": scope["route"].path,
        **scope.get("path_params", {}),
        **scope.get(ABOUT, {}),
        "status": status,
        "error": error,
    }
    log.info(json.dumps(line))
