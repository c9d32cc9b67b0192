"""The OpenAPI document as committed in `docs/openapi.json`: `python -m server.openapi > FILE`.

A test compares the two, so that a change of the HTTP surface is seen in review.
"""

from __future__ import annotations

import json
import sys

from server.app import routed_app


def document() -> str:
    """The document as text, the same for the same routes."""
    return json.dumps(routed_app().openapi(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
