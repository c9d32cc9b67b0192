"""Serves the console below `/console` of an app, and brings there who asks for `/`.

Needs the extra `console`.

NiceGUI keeps one app a process, and so there is one console a process.
"""

from __future__ import annotations

from fastapi import FastAPI
from nicegui import Client, core, run, ui
from nicegui import app as pages
from starlette.responses import RedirectResponse
from starlette.routing import Mount

from server.access.rules import PAGE
from server.console.doors import Doors
from server.console.page import Page
from server.relay.messages import Relay


def mount(app: FastAPI, relay: Relay) -> None:
    """Serve the console.

    Args:
        relay: to the app that answers the API; `app` itself, by a `LocalRelay`.
    """

    @ui.page("/", title="Sailplane", response_timeout=30)
    async def console() -> None:
        await Page(relay).build()

    core.sio.on("log", _unheard)
    run.setup = _no_processes
    pages.config.socket_io_js_transports = ["websocket"]
    ui.run_with(
        app, mount_path=PAGE, title="Sailplane", dark=None, language="en-US", tailwind=False,
        binding_refresh_interval=None, show_welcome_message=False, reconnect_timeout=10.0,
    )  # fmt: skip
    app.add_api_route("/", _to_page, methods=["GET", "HEAD"], include_in_schema=False)
    for route in app.routes:
        if isinstance(route, Mount) and route.path == PAGE:
            route.app = Doors(route.app, lambda: list(Client.instances.values()))


async def _to_page() -> RedirectResponse:
    """From the bare address; relative, since a proxy may serve the app below a path of its own."""
    return RedirectResponse(f"{PAGE[1:]}/")


async def _unheard(*_: object) -> None:
    """What a browser wants written into the server's log: anybody could write lines of theirs."""


def _no_processes() -> None:
    """NiceGUI makes a pool of processes, unused here, which takes semaphores some machines lack."""
