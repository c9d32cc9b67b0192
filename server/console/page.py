"""The page: its views as tabs, the key of who looks, and the link that brings all of it back.

The key stays in the browser's tab (`sessionStorage`) and goes with every request, as any client
sends one. What was asked stands behind `#`, which is sent to nobody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from nicegui import events, ui

from server.console.api import Api, Refused
from server.console.ask import Ask
from server.console.compare import Compare
from server.console.experts import Experts
from server.console.live import Live
from server.console.parts import note, say
from server.console.visit import Visit
from server.console.wish import Wish
from server.relay.messages import Relay

STYLE = Path(__file__).with_name("console.css")
VIEWS = {"ask": "Ask", "compare": "Compare", "library": "Library", "live": "Live"}
REMEMBERED = """return {
  key: sessionStorage.getItem("sailplane-key") || "", hash: location.hash.slice(1),
  base: location.origin }"""
FOLLOWED = """addEventListener("hashchange", () => emitEvent("moved", location.hash.slice(1)))"""


class Page:
    """One visit's page."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self.view = "ask"
        self._links: dict[str, str] = {}

    async def build(self) -> None:
        """The frame at once, and the views when the server has told what there is."""
        ui.add_css(STYLE.read_text("utf-8"))
        self._dark = ui.dark_mode(None)
        self._header()
        self.body = ui.element("main").classes("body").props('id="main"')
        with self.body:
            ui.skeleton().classes("wide")
        await ui.context.client.connected()
        known = await ui.run_javascript(REMEMBERED, timeout=10)
        self._base = known["base"]
        self._turn_to(known["hash"])
        ui.on("moved", self._moved)
        ui.run_javascript(FOLLOWED)
        await self.enter(known["key"])

    def _turn_to(self, link: str) -> None:
        view, _, asked = link.partition("&")
        self.view = view if view in VIEWS else "ask"
        self._links[self.view] = asked

    async def _moved(self, event: events.GenericEventArguments) -> None:
        """Somebody followed a link to another view, or changed the address by hand."""
        self._turn_to(event.args)
        self.tabs.value = self.view
        await self._show()

    def _header(self) -> None:
        with ui.header().classes("top"):
            ui.label("Sailplane").classes("name")
            with ui.tabs(on_change=self._turn).props("no-caps dense") as self.tabs:
                for name, says in VIEWS.items():
                    ui.tab(name, label=says)
            ui.space()
            self.who = ui.button("Key", on_click=self._ask_key).props("flat dense no-caps")
            self.who.classes("at-key")
            ui.button(icon="contrast", on_click=self._turn_light).props(
                'flat dense aria-label="Light or dark"'
            )

    async def enter(self, key: str) -> None:
        """Look at the server with a key, or ask for one."""
        self.visit = Visit(Api(self._relay, key), self._base)
        try:
            await self.visit.look()
        except Refused as refused:
            await self._refused(refused)
            return
        self.tabs.value = self.view
        await self._show()

    async def _refused(self, refused: Refused) -> None:
        """Say what the server says, and offer to try a key."""
        self.body.clear()
        with self.body:
            note(str(refused), "warning").classes("at-refused")
            if refused.status in (401, 403):
                self._key_field()
            else:
                ui.button("Try again", on_click=lambda: self.enter(self.visit.api.key))

    def _key_field(self) -> None:
        field = ui.input("Key of this server (sp-...)", password=True).props(
            "outlined autocomplete=off"
        ).classes("wide").classes("at-key-field")  # fmt: skip
        note("It stays in this tab of your browser and is sent with each request.")

        async def take() -> None:
            key = (field.value or "").strip()
            await ui.run_javascript(f"sessionStorage.setItem('sailplane-key', {key!r})")
            await self.enter(key)

        field.on("keydown.enter", take)
        ui.button("Use this key", on_click=take).classes("at-use-key")

    async def _ask_key(self) -> None:
        self.body.clear()
        with self.body:
            self._key_field()

    def _turn_light(self) -> None:
        self._dark.value = not self._dark.value

    async def _turn(self) -> None:
        if self.tabs.value != self.view:
            self.view = self.tabs.value
            await self._show()

    async def _show(self) -> None:
        """The view that is turned to."""
        self.body.clear()
        link = self._links.get(self.view, "")
        with self.body:
            try:
                await self._makers()[self.view](link)
            except Refused as refused:
                say(refused)
                note(str(refused), "warning")
        self._keep(link)

    def _makers(self) -> dict[str, Callable[[str], Awaitable[None]]]:
        return {"ask": self._ask, "compare": self._compare, "library": self._library,
                "live": self._live}  # fmt: skip

    async def _ask(self, link: str) -> None:
        view = Ask(self.visit, self._keep)
        if link:
            view.form.fill(Wish.of_link(link))

    async def _compare(self, link: str) -> None:
        Compare(self.visit, self._keep, link)

    async def _library(self, link: str) -> None:
        await Experts(self.visit, self._keep).build(link)

    async def _live(self, _link: str) -> None:
        await Live(self.visit).build()

    def _keep(self, link: str) -> None:
        """Have the address say what is shown."""
        self._links[self.view] = link
        said = f"#{self.view}&{link}" if link else f"#{self.view}"
        ui.run_javascript(f"history.replaceState(null, '', {said!r})")
