"""Has the engine look at the library's folder again and again, for what others change there.

Off the event loop, and never while another change goes on. Knows nothing of files.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from experts.errors import ExpertError
from experts.snapshot import Changes
from server.engine.service import EngineService

log = logging.getLogger("sailplane.library")
SHOWN = 20
"""Ids in one log line."""


@asynccontextmanager
async def watching(service: EngineService, seconds: float) -> AsyncGenerator[None]:
    """Look every so many seconds inside the context; 0 never looks."""
    task = asyncio.create_task(_watch(service, seconds)) if seconds else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.wait([task])


async def _watch(service: EngineService, seconds: float) -> None:
    last = ""
    while True:
        await asyncio.sleep(seconds)
        failure = ""
        try:
            found = await service.run_blocking(service.engine.scan)
            _tell(found)
        except (ExpertError, OSError) as error:
            failure = str(error)
            if failure != last:  # it will be the same until somebody acts
                log.error("the library could not be looked at: %s", failure)
        except Exception:
            failure = "unforeseen"
            log.exception("the library could not be looked at")
        service.metrics.looked("failed" if failure else "done")
        last = failure


def _tell(found: Changes) -> None:
    for what in ("added", "replaced", "removed"):
        if ids := getattr(found, what):
            more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
            log.info("found %s by others: %s%s", what, ", ".join(ids[:SHOWN]), more)
