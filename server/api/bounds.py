"""How much one request may be, and how long it may take, whoever sends it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """None is no bound.

    Attributes:
        body_bytes: the largest body. tokens: most tokens of prompts and texts of one request for
            text. client_seconds: in which a body must arrive.
        timeout_ms: the deadline of a request that names none; write_timeout_ms: of one for text.
    """

    body_bytes: int = 2**20
    tokens: int | None = None
    client_seconds: float | None = None
    timeout_ms: float | None = None
    write_timeout_ms: float | None = None


DEFAULT_BOUNDS = Bounds()
