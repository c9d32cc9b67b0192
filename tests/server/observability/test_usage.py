"""How often an expert was used, and when last."""

from __future__ import annotations

import time

from server.observability.usage import NEVER, Usage


def test_uses_are_counted_by_expert():
    usage, began = Usage(), time.time()
    usage.note(["a", "b"])
    usage.note(["a"])
    assert [usage.of(id).times for id in "abc"] == [2, 1, 0]
    assert usage.of("c") == NEVER
    last = usage.of("a").last
    assert last is not None
    assert began <= last <= time.time()
