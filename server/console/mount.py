"""Serves the console below `/console` of an app. Needs the extra `console`.

NiceGUI keeps one app a process, and so there is one console a process.
"""

from __future__ import annotations

from fastapi import FastAPI
from nicegui import Client, ui

from server.access.rules import PAGE
from server.console.page import Page
from server.relay.messages import Relay

MOST = 64
"""Pages that may be open at a time: they are open to who has no key, and each takes memory."""


def mount(app: FastAPI, relay: Relay) -> None:
    """Serve the console.

    Args:
        relay: to the app that answers the API; `app` itself, by a `LocalRelay`.
    """

    @ui.page("/", title="Sailplane", response_timeout=30)
    async def console() -> None:
        if len(Client.instances) > MOST:
            ui.status_code(503)
            ui.label("Too many pages of the console are open. Close some, or try again in a minute.")
            return
        await Page(relay).build()

    ui.run_with(
        app, mount_path=PAGE, title="Sailplane", dark=None, language="en-US", tailwind=False,
        binding_refresh_interval=None, show_welcome_message=False, reconnect_timeout=10.0,
    )  # fmt: skip
