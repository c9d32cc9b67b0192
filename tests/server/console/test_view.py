"""Work goes on while somebody waits for it, and no longer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

pytest.importorskip("nicegui")
from server.console.api import Refused
from server.console.view import Left, Turn, Turns

pytestmark = pytest.mark.anyio


@dataclass
class Place:
    is_deleted: bool = False


async def forever(ended):
    try:
        await asyncio.sleep(3600)
    finally:
        ended.append(True)


async def test_what_comes_is_given_and_what_is_refused_is_raised():
    async def refused():
        raise Refused("no", status=404)

    turn = Turn(Place())
    assert await turn.wait(asyncio.sleep(0, "here")) == "here"
    with pytest.raises(Refused, match="no"):
        await turn.wait(refused())


@pytest.mark.parametrize("leave", ["asks something else", "closes the page"])
async def test_what_nobody_waits_for_is_ended(leave):
    place, ended = Place(), []
    turns = Turns(place)
    waiting = asyncio.ensure_future(turns.next().wait(forever(ended)))
    await asyncio.sleep(0.05)
    assert not ended
    if leave == "closes the page":
        place.is_deleted = True
    else:
        turns.next()
    with pytest.raises(Left):
        await asyncio.wait_for(waiting, 5)
    await asyncio.sleep(0)
    assert ended
