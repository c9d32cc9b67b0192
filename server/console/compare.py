"""The view that compares: one question under two to four settings, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from server.console.answer import (
    NOTHING,
    marks_of,
    show_answer,
    show_candidates,
    show_remarks,
    show_stages,
)
from server.console.api import Refused
from server.console.form import Form
from server.console.parts import bring_into_sight, heading, named, note, snippets
from server.console.reading import differences, text_of, trace_of
from server.console.view import UNKNOWN, View
from server.console.wish import Wish, of_links, to_links

LEAST, MOST = 2, 4
LETTERS = "ABCD"
Said = Mapping[str, Any] | Refused


class Compare(View):
    """Forms that share a question."""

    stays = True

    async def build(self, link: str) -> None:
        """See `View.build`; what a link compares is compared."""
        usual = [Wish(sort=self.visit.sort), Wish(sort=self.visit.sort, router="glider")]
        linked = of_links(link)[:MOST]
        wishes = [*linked, *usual[len(linked) :]]
        self.question = Form(self.visit, routes=False)
        self.question.fill(wishes[0])
        self.settings = ui.element("div").classes("beside")
        with ui.row():
            ui.button("Compare", on_click=self.careful(self.ask))
            ui.button("Add a setting", on_click=lambda: self._add(Wish())).props("flat")
            ui.button("Remove the last", on_click=self._remove).props("flat")
            ui.button("Copy link", on_click=self.careful(self.copy_link)).props("flat")
        self.shown = ui.element("div").classes("beside")
        self.forms: list[Form] = []
        for wish in wishes:
            self._add(wish)
        if linked and linked[0].text:
            await self.ask()

    @property
    def link(self) -> str:
        """See `View.link`."""
        return to_links(self._wishes())

    def back(self) -> None:
        """See `View.back`."""
        for form in self.forms:
            form.renew()

    def _add(self, wish: Wish) -> None:
        if len(self.forms) == MOST:
            ui.notify(f"{MOST} settings are as many as can be compared.")
            return
        with self.settings, ui.element("section").classes("setting"):
            heading(f"Setting {LETTERS[len(self.forms)]}")
            form = Form(self.visit, asks=False)
            form.fill(wish)
        self.forms.append(form)

    def _remove(self) -> None:
        if len(self.forms) <= LEAST:
            ui.notify(f"It takes {LEAST} settings to compare.")
            return
        self.forms.pop()
        list(self.settings)[-1].delete()

    def _wishes(self) -> list[Wish]:
        """What each setting asks."""
        question = self.question.wish()
        return [form.wish(question) for form in self.forms]

    async def ask(self, *_: object) -> None:
        """Ask by every setting at once, and show the answers beside each other."""
        wishes, turn = self._wishes(), self.turns.next()
        self.keep(to_links(wishes))
        self.shown.clear()
        with self.shown:
            note("Asking ...").props("role=status")
        found = await turn.wait(self._all(wishes))
        self.shown.clear()
        for i, (wish, said) in enumerate(zip(wishes, found, strict=True)):
            with self.shown:
                place = ui.element("section").classes(f"setting at-answer-{i}")
            with named(place, f"Answer of setting {LETTERS[i]}"):
                heading(f"Setting {LETTERS[i]}")
                note(wish.way)
                self._show(wish, said, found[0])
        bring_into_sight(self.shown)

    async def _all(self, wishes: Sequence[Wish]) -> list[Said]:
        found = await asyncio.gather(*(self._one(wish) for wish in wishes))
        if any(isinstance(said, Refused) and self.visit.refused_trace(said) for said in found):
            return await self._all(wishes)
        return found

    async def _one(self, wish: Wish) -> Said:
        """An answer, or why there is none: one setting that is refused hides no other."""
        try:
            return await self.visit.api.post(wish.path, self._body(wish))
        except Refused as refused:
            if refused.status == UNKNOWN:
                raise
            return refused

    def _body(self, wish: Wish) -> dict[str, Any]:
        return wish.body("full" if self.visit.traced else None, stream=False)

    def _show(self, wish: Wish, said: Said, first: Said) -> None:
        if isinstance(said, Refused):
            note(str(said), "warning")
            return
        if not isinstance(first, Refused):
            for difference in differences(said, first):
                note(difference, "warning").classes("at-differs")
        if wish.writes:
            ui.label(text_of(said) or NOTHING).classes("said written at-answer")
        else:
            show_answer(said["answers"][0])
        if trace := trace_of(said):
            show_remarks(trace)
            show_candidates(trace, marks_of(trace))
            show_stages(trace.get("stages") or [])
        snippets(self.visit, "POST", wish.path, self._body(wish))
