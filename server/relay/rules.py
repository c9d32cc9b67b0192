"""What may be asked twice, and what changes the library: by method and path, like the keys' table.

Closed by default: what is not named here is asked once. To replace an expert twice would push a
version out that could be rolled back to, and to remove one twice is an error.
"""

from __future__ import annotations

SCAN = "/v1/experts/scan"
REPEATABLE = frozenset(
    {
        "/v1/decisions", "/v1/embeddings", "/v1/route", "/v1/chat/completions", "/v1/completions",
        "/v1/map", SCAN,
    }
)  # fmt: skip
"""POSTs that leave nothing behind but their answer."""
ALIASES = "/v1/aliases/"
"""To name an expert twice is to name it once."""
LIBRARY = ("/v1/experts", "/v1/aliases", "/v1/load_lora_adapter", "/v1/unload_lora_adapter")
READING = frozenset({"GET", "HEAD", "OPTIONS"})


def is_repeatable(method: str, path: str) -> bool:
    """Whether a request may be asked again that nobody has begun to answer."""
    if method == "POST":
        return path in REPEATABLE
    return method in READING or (method == "PUT" and path.startswith(ALIASES))


def changes_library(method: str, path: str) -> bool:
    """Whether others have to look at the library after this request."""
    if method in READING or path == SCAN:
        return False
    return any(path == root or path.startswith(f"{root}/") for root in LIBRARY)
