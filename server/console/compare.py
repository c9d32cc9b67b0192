"""The view that compares: one question under two to four settings, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nicegui import ui

from server.console.answer import marks_of, show_answer, show_candidates, show_stages
from server.console.api import Refused
from server.console.form import Form
from server.console.parts import heading, note, snippets, told
from server.console.reading import spoken, text_of, trace_of
from server.console.visit import Visit
from server.console.wish import Wish, of_links, to_links

LEAST, MOST = 2, 4
LETTERS = "ABCD"


class Compare:
    """Forms that share a question.

    Args:
        keep: told the link of what was asked. link: of what is to be compared.
    """

    def __init__(self, visit: Visit, keep: Callable[[str], object], link: str) -> None:
        self.visit, self._keep = visit, keep
        wishes = of_links(link) or [Wish(), Wish(router="glider")]
        with ui.element("div").classes("stack"):
            self.question = Form(visit, routes=False)
            self.question.fill(wishes[0])
            self.settings = ui.element("div").classes("beside").classes("at-settings")
            with ui.row():
                self.button = ui.button("Compare", on_click=self.ask).classes("at-compare")
                ui.button("Add a setting", on_click=self._add).props("flat").classes(
                    "at-add-setting"
                )
                ui.button("Remove the last", on_click=self._remove).props("flat")
                ui.button("Copy link", on_click=self._copy).props("flat")
            self.shown = ui.element("div").classes("beside").classes("at-compared")
        self.forms: list[Form] = []
        for wish in wishes[:MOST]:
            self._add(wish)

    def _add(self, wish: Wish | None = None) -> None:
        if len(self.forms) == MOST:
            ui.notify(f"{MOST} settings are as many as can be compared.")
            return
        with self.settings, ui.element("section").classes("setting"):
            heading(f"Setting {LETTERS[len(self.forms)]}", 3)
            form = Form(self.visit, asks=False)
            form.fill(wish if isinstance(wish, Wish) else Wish())
        self.forms.append(form)

    def _remove(self) -> None:
        if len(self.forms) == LEAST:
            ui.notify(f"It takes {LEAST} settings to compare.")
            return
        self.forms.pop()
        list(self.settings)[-1].delete()

    def wishes(self) -> list[Wish]:
        """What each setting asks."""
        question = self.question.wish()
        return [form.wish(question) for form in self.forms]

    async def _copy(self) -> None:
        self._keep(to_links(self.wishes()))
        ui.clipboard.write(await ui.run_javascript("return location.href"))
        ui.notify("Copied.")

    @told
    async def ask(self) -> None:
        """Ask by every setting at once, and show the answers beside each other."""
        wishes = self.wishes()
        self._keep(to_links(wishes))
        self.button.props("loading")
        try:
            found = await self._all(wishes)
        finally:
            self.button.props(remove="loading")
        self.shown.clear()
        with self.shown:
            for i, (wish, said) in enumerate(zip(wishes, found, strict=True)):
                with (
                    ui.element("section")
                    .classes("setting")
                    .props(f'aria-label="Answer of setting {LETTERS[i]}"')
                    .classes(f"at-answer-{i}")
                ):
                    heading(f"Setting {LETTERS[i]}")
                    self._show(wish, said, found)

    async def _all(self, wishes: Sequence[Wish]) -> list[Mapping[str, Any] | Refused]:
        found = await asyncio.gather(*(self._one(wish) for wish in wishes))
        if any(isinstance(said, Refused) and self.visit.refused_trace(said) for said in found):
            return await self._all(wishes)
        return found

    async def _one(self, wish: Wish) -> Mapping[str, Any] | Refused:
        """An answer, or why there is none: one setting that is refused hides no other."""
        try:
            return await self.visit.api.post(wish.path, self._body(wish))
        except Refused as refused:
            return refused

    def _body(self, wish: Wish) -> dict[str, Any]:
        return wish.body("full" if self.visit.traced else None, stream=False)

    def _show(self, wish: Wish, said: Any, found: Sequence[Any]) -> None:
        if isinstance(said, Refused):
            note(str(said), "warning")
            return
        if _word(said) != next((_word(f) for f in found if not isinstance(f, Refused)), None):
            note("Another answer than the first setting's.", "warning").classes("at-differs")
        if wish.writes:
            ui.label(text_of(said)).classes("said written at-answer")
        else:
            show_answer(said["answers"][0])
        if trace := trace_of(said):
            show_candidates(trace, marks_of(trace))
            show_stages(trace.get("stages") or [])
        snippets(self.visit, "POST", wish.path, self._body(wish))


def _word(said: Mapping[str, Any]) -> str:
    """The answer in short, to tell whether two are the same."""
    return spoken(said["answers"][0]) if "answers" in said else text_of(said)
