"""Work that looks at the library and changes nothing, beside the queue: little of it at a time.

Knows nothing of what is looked at. A change of the library does not wait for it, nor it for one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import ParamSpec, TypeVar

from server.errors import QueueFull

P = ParamSpec("P")
T = TypeVar("T")
MOST_WAITING = 8


class Looking:
    """One thread, and few who wait for it.

    Args:
        most: pieces of work that may be there, the one that runs among them.
    """

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._most, self._there = most, 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sailplane-looking")

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What work returns.

        Raises:
            QueueFull: enough of it waits already. What has begun counts until it has ended, though
                nobody may wait for it any more.
        """
        if self._there >= self._most:
            raise QueueFull("Too many look at the library now. Try again in a moment.")
        loop = asyncio.get_running_loop()
        self._there += 1
        future = self._thread.submit(work, *args, **kwargs)
        future.add_done_callback(lambda _: self._tell(loop))
        return await asyncio.wrap_future(future)

    def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the server has ended meanwhile
            loop.call_soon_threadsafe(self._ended)

    def _ended(self) -> None:
        self._there -= 1
