"""What is open to everybody is bounded: paths, methods, and pages that are open at a time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import httpx
import pytest
from starlette.responses import PlainTextResponse

from server.console.doors import MOST, Doors

pytestmark = pytest.mark.anyio


@dataclass
class Page:
    created: float
    has_socket_connection: bool = False
    gone: list[float] = field(default_factory=list)

    def delete(self):
        self.gone.append(self.created)


def client_of(pages):
    app = Doors(PlainTextResponse("inside"), lambda: pages)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.mark.parametrize("path", ["/", "/_nicegui/3.18.0/static/nicegui.js"])
async def test_the_page_and_its_files_are_there(path):
    async with client_of([]) as client:
        assert (await client.get(path)).text == "inside"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/anything", 404), ("POST", "/", 405), ("PUT", "/_nicegui/x", 405),
     ("GET", "/_nicegui_ws/socket.io/?EIO=4&transport=polling", 405),
     ("POST", "/_nicegui_ws/socket.io/?EIO=4&transport=polling&sid=1", 405)],
)  # fmt: skip
async def test_nothing_else_is(method, path, status):
    async with client_of([]) as client:
        response = await client.request(method, path)
    assert (response.status_code, response.text == "inside") == (status, False)


async def test_no_more_pages_are_connected_than_may_be():
    pages = [Page(t, has_socket_connection=True) for t in range(MOST - 1)]
    async with client_of(pages) as client:
        assert (await client.get("/")).status_code == 200
        pages.append(Page(99, has_socket_connection=True))
        assert (await client.get("/")).status_code == 503
        assert (await client.get("/_nicegui/x.js")).status_code == 200
    assert not any(page.gone for page in pages)


async def test_pages_that_nobody_connected_to_make_room_the_oldest_first():
    pages = [Page(t) for t in reversed(range(MOST + 3))]
    async with client_of(pages) as client:
        assert (await client.get("/")).status_code == 200
    assert sorted(page.created for page in pages if page.gone) == [0, 1, 2, 3]


async def test_no_more_websockets_are_open_than_may_be_whatever_they_say():
    over, sent = asyncio.Event(), []

    async def app(scope, receive, send):
        await over.wait()

    async def send(message):
        sent.append(message["code"])

    doors = Doors(app, list)
    scope = {"type": "websocket", "path": "/_nicegui_ws/socket.io/", "headers": []}
    open_ = [asyncio.ensure_future(doors(scope, None, send)) for _ in range(MOST)]
    await asyncio.sleep(0)
    await doors(scope, None, send)
    assert sent == [1013]
    over.set()
    await asyncio.gather(*open_)
    await doors(scope, None, send)
    assert sent == [1013]
