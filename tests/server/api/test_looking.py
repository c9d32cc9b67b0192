"""Who looks waits in a short line, beside changes of the library."""

from __future__ import annotations

import asyncio
import threading

import pytest

from server.api.looking import Looking
from server.errors import QueueFull

pytestmark = pytest.mark.anyio


async def test_work_is_done_one_at_a_time_and_its_errors_are_raised():
    looking, running, most = Looking(), 0, 0

    def work(n):
        nonlocal running, most
        running += 1
        most = max(most, running)
        running -= 1
        if n == 3:
            raise ValueError("three")
        return n

    found = await asyncio.gather(*(looking.run(work, n) for n in range(5)), return_exceptions=True)
    assert [f for f in found if not isinstance(f, ValueError)] == [0, 1, 2, 4]
    assert most == 1


async def test_who_comes_too_many_is_refused_also_where_the_former_left():
    looking, free = Looking(2), threading.Event()
    begun = [asyncio.ensure_future(looking.run(free.wait, 10)) for _ in range(2)]
    await asyncio.sleep(0.05)
    begun[0].cancel()
    await asyncio.sleep(0.05)
    with pytest.raises(QueueFull):
        await looking.run(int)
    free.set()
    assert await begun[1] is True
    await asyncio.sleep(0.05)
    assert await looking.run(int) == 0


async def test_a_map_does_not_wait_for_a_change_of_the_library(client, service):
    async with service._admin:
        assert (await asyncio.wait_for(client.get("/v1/map"), 10)).status_code == 200
