"""How often an expert was used, and when last."""

from __future__ import annotations

import time

from server.observability.usage import NEVER, Usage


def test_uses_are_counted_by_version():
    usage, began = Usage(), time.time()
    usage.note(["a@1", "b@1"])
    usage.note(["a@1"])
    assert [usage.of(ref).times for ref in ("a@1", "b@1", "a@2")] == [2, 1, 0]
    assert usage.of("c@1") == NEVER
    last = usage.of("a@1").last
    assert last is not None
    assert began <= last <= time.time()
