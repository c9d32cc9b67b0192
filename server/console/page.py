"""The page: its views as tabs, the key of who looks, and the link that brings all of it back.

The key stays in the browser's tab (`sessionStorage`) and goes with every request, as any client
sends one. What is asked stands behind `#`, which is sent to nobody.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from nicegui import events, ui
from nicegui.awaitable_response import AwaitableResponse

from server.console.api import Api, Refused
from server.console.ask import Ask
from server.console.compare import Compare
from server.console.experts import Experts
from server.console.live import Live
from server.console.parts import named, note
from server.console.view import UNKNOWN, View
from server.console.visit import FORBIDDEN, Visit
from server.relay.messages import Relay

STYLE = Path(__file__).with_name("console.css")
VIEWS: dict[str, tuple[str, type[View]]] = {
    "ask": ("Ask", Ask), "compare": ("Compare", Compare), "library": ("Library", Experts),
    "live": ("Live", Live),
}  # fmt: skip
FIRST = "ask"
REMEMBERED = """
let key = "", chosen = null;
try { key = sessionStorage.getItem("sailplane-key") || "" } catch { }
try { chosen = localStorage.getItem("sailplane-dark") } catch { }
addEventListener("hashchange", () => emitEvent("moved", location.hash.slice(1)));
return { key, hash: location.hash.slice(1), base: location.origin, chosen,
         dark: matchMedia("(prefers-color-scheme: dark)").matches }"""
REMEMBER = "try {{ sessionStorage.setItem('sailplane-key', {}) }} catch {{ }}"
LIGHT = "try {{ localStorage.setItem('sailplane-dark', '{}') }} catch {{ }}"
PUSH, REPLACE = "pushState", "replaceState"
"""How an address comes into the browser's history: as a new step, or in the last one's place."""
SLOW = 30.0
"""Seconds that a browser may take to say what it remembers."""
Build = Callable[[], Awaitable[None]]


class Page:
    """One visit's page."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._name = FIRST
        self._views: dict[str, View] = {}
        self._locked = True
        self._links: dict[str, str] = {}

    async def build(self) -> None:
        """The frame at once, and the views when the server has told what there is."""
        self._client = ui.context.client  # what was clicked may be gone when its work is done
        ui.add_css(STYLE.read_text("utf-8"))
        self._dark = ui.dark_mode(None)
        self._header()
        self.body = ui.element("div").classes("body")
        with self.body:
            ui.skeleton().classes("wide")
        await self._client.connected()
        known = await self._client.run_javascript(REMEMBERED, timeout=SLOW)
        if known is None:  # nobody came to look
            return
        self._base, self._is_dark = known["base"], bool(known["dark"])
        if known["chosen"]:
            self._dark.value = self._is_dark = known["chosen"] == "true"
        self._aim(known["hash"])
        ui.on("moved", self._moved)
        await self.enter(known["key"])

    def _header(self) -> None:
        with ui.header().classes("top"):
            with ui.element("h1").classes("name"):
                ui.label("Sailplane")
            with ui.tabs().props("no-caps dense") as self.tabs:
                for name, (says, _) in VIEWS.items():
                    # By clicks: in the browser the value is as the server last said, and turning
                    # to that, before it heard of the turn before, is no change.
                    ui.tab(name, label=says).on("click", partial(self._turn, name), args=[])
            self.tabs.set_visibility(False)
            ui.space()
            ui.button("Key", on_click=self._change_key).props("flat dense no-caps")
            named(ui.button(icon="contrast", on_click=self._turn_light), "Light or dark").props(
                "flat dense"
            )

    async def enter(self, key: str) -> None:
        """Look at the server with a key, or ask for one."""
        address = self._client.request.client
        api = Api(self._relay, key, (address.host, address.port) if address else None)
        self.visit = Visit(api, self._base, locked=self._lock)
        self.visit.dark = self._is_dark
        try:
            await self.visit.look()
        except Refused as refused:
            self._lock(refused)
            return
        self._clear()
        self._locked = False
        self.tabs.set_visibility(True)
        self.tabs.value = self._name
        await self._show()

    def _lock(self, refused: Refused) -> None:
        """Say what the server says, and offer to try a key."""
        self.tabs.set_visibility(False)
        self._clear()
        self._locked = True
        with self.body:
            note(str(refused), "warning")
            if refused.status in (UNKNOWN, FORBIDDEN):
                self._key_field(lambda: None)
            else:
                ui.button("Try again", on_click=lambda: self.enter(self.visit.api.key))

    def _key_field(self, done: Callable[[], object]) -> None:
        field = ui.input("Key of this server (sp-...)", password=True).props(
            "outlined autocomplete=off"
        ).classes("wide")  # fmt: skip
        note("It stays in this tab of your browser and is sent with each request.")

        async def take(key: str) -> None:
            done()
            self._client.run_javascript(REMEMBER.format(json.dumps(key)))
            await self.enter(key)

        async def use() -> None:
            await take((field.value or "").strip())

        field.on("keydown.enter", use)
        with ui.row():
            ui.button("Use this key", on_click=use)
            ui.button("Forget the key", on_click=lambda: take("")).props("flat")

    def _change_key(self) -> None:
        with self.body, ui.dialog(value=True) as dialog, ui.card():
            self._key_field(dialog.close)
            ui.button("Cancel", on_click=dialog.close).props("flat")
        dialog.on("hide", dialog.delete)  # and with it what was typed

    def _turn_light(self) -> None:
        self._dark.value = self._is_dark = not self._is_dark
        if self._views:
            self.visit.dark = self._is_dark
        self._client.run_javascript(LIGHT.format(json.dumps(self._is_dark)))

    def _aim(self, link: str) -> None:
        """Note what a link brings back; what is no link brings the first view."""
        name, _, asked = link.partition("&")
        self._name = name if name in VIEWS else FIRST
        self._links[self._name] = asked

    async def _moved(self, event: events.GenericEventArguments) -> None:
        """Somebody followed a link to another view, or changed the address by hand."""
        self._leave()
        was = dict(self._links)
        self._aim(str(event.args))
        if self._locked:  # the key comes first
            return
        moved = was.get(self._name, "") != self._links[self._name]
        if moved and (view := self._views.pop(self._name, None)):
            view.place.delete()
        self.tabs.value = self._name
        await self._show()

    async def _turn(self, name: str) -> None:
        """Somebody chose a tab."""
        self.tabs.value = name
        if name == self._name:
            return
        self._leave()
        self._name = name
        await self._show(PUSH)

    def _leave(self) -> None:
        """Put away the view that is shown: out of sight, or for good with all that it does."""
        name = self._name
        if (view := self._views.get(name)) is None:
            return
        if view.stays:
            view.place.set_visibility(False)
        else:
            self._links[name] = view.link
            view.place.delete()
            del self._views[name]

    def _clear(self) -> None:
        self._views.clear()
        self.body.clear()

    async def _show(self, how: str = REPLACE) -> None:
        """The view that is turned to: as it was left, or built with what its link brings back."""
        name, (says, view) = self._name, VIEWS[self._name]
        link = self._links.get(name, "")
        self._keep(name, link, how)
        if left := self._views.get(name):
            left.place.set_visibility(True)
            left.back()
            return
        with self.body:
            place = named(ui.element("div").classes("stack").props("role=tabpanel"), says)
        self._views[name] = made = view(self.visit, place, lambda said: self._keep(name, said))
        with place:
            await made.careful(lambda: made.build(link))()

    def _keep(self, name: str, link: str, how: str = REPLACE) -> AwaitableResponse | None:
        """Have the address say what is shown, if that is still what is shown."""
        self._links[name] = link
        if name != self._name:
            return None
        said = json.dumps(f"#{name}&{link}" if link else f"#{name}")
        return self._client.run_javascript(f"history.{how}(null, '', {said})", timeout=SLOW)
