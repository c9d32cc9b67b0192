"""The view that asks: a form, and the answer with its trace."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from nicegui import ui

from server.console.answer import Written, marks_of, show_answer, show_trace
from server.console.api import Refused
from server.console.examples import Example, examples
from server.console.form import Form
from server.console.parts import bring_into_sight, heading, named, note, snippets
from server.console.reading import trace_of
from server.console.view import UNKNOWN, Turn, View
from server.console.wish import AUTO, Wish, to_links

MOST_EXAMPLES = 40


class Ask(View):
    """One form and its answer."""

    stays = True
    _begun = False
    """Whether something of the answer is shown."""

    async def build(self, link: str) -> None:
        """See `View.build`; what a link asks is asked."""
        with ui.element("div").classes("columns"):
            with named(ui.element("section").classes("left"), "Question"):
                self._examples()
                self.form = Form(self.visit)
                with ui.row():
                    ui.button("Ask", on_click=self.careful(self.ask))
                    ui.button("Copy link", on_click=self.careful(self.copy_link)).props("flat")
                    ui.button("Compare this", on_click=self._compare).props("flat")
            self.shown = named(ui.element("section").classes("right"), "Answer")
        with self.shown:
            note("The answer comes here, with who gave it and why.")
        wish = Wish.of_link(link)
        if link:
            self.form.fill(wish)
        if wish.text:
            await self.ask()

    @property
    def link(self) -> str:
        """See `View.link`."""
        return self.form.wish().to_link()

    def back(self) -> None:
        """See `View.back`."""
        self.form.renew()

    def _examples(self) -> None:
        """One example an expert, to click."""
        found = examples(self.visit.experts, self.visit.sort)
        if not found:
            return
        with ui.expansion("Examples, one an expert", value=True).classes("wide"):
            with ui.element("div").classes("chips"):
                for example in found[:MOST_EXAMPLES]:
                    ui.button(
                        example.title, on_click=self.careful(lambda *_, e=example: self._try(e))
                    ).props("flat dense no-caps")
            if len(found) > MOST_EXAMPLES:
                note(f"and {len(found) - MOST_EXAMPLES} more: every expert in Library has its own")

    async def _try(self, example: Example) -> None:
        self.form.fill(example.wish)
        await self.ask()

    async def ask(self, *_: object) -> None:
        """Ask what the form says, and show what comes in the place of the former answer."""
        wish, turn = self.form.wish(), self.turns.next()
        self.keep(wish.to_link())
        self._clear()
        with self.shown:
            note("Asking ...").props("role=status")
        bring_into_sight(self.shown)
        try:
            await self._ask(wish, turn)
        except Refused as refused:
            if refused.status == UNKNOWN:
                raise
            turn.require()
            self._say_why(wish, refused)

    def _say_why(self, wish: Wish, refused: Refused) -> None:
        """The server's no, beside what it is about; what was written before stays."""
        if not self._begun:
            self._clear()
        with self.shown:
            note(str(refused), "warning").classes("at-refused").props("role=alert")
            snippets(self.visit, "POST", wish.path, self._body(wish))

    def _compare(self) -> None:
        """The other view, with this question."""
        wish = self.form.wish()
        other = replace(wish, router="phatgoose" if wish.router == "glider" else "glider",
                        model=AUTO, experts={})  # fmt: skip
        ui.navigate.to(f"#compare&{to_links([wish, other])}")

    def _body(self, wish: Wish) -> dict[str, Any]:
        return wish.body("tokens" if self.visit.traced else None)

    async def _ask(self, wish: Wish, turn: Turn) -> None:
        show = self._write if wish.writes else self._decide
        try:
            trace = await show(wish.path, self._body(wish), turn)
        except Refused as refused:
            if not self.visit.refused_trace(refused):
                raise
            trace = await show(wish.path, self._body(wish), turn)
        with self.shown:
            if trace is None:
                note("This key may not see traces.")
            else:
                self.visit.asked = trace["instruction"]
                show_trace(trace)
            snippets(self.visit, "POST", wish.path, self._body(wish))

    async def _decide(
        self, path: str, body: Mapping[str, Any], turn: Turn
    ) -> Mapping[str, Any] | None:
        """Show an answer; its trace."""
        said = await turn.wait(self.visit.api.post(path, body))
        self._clear()
        with self.shown:
            show_answer(said["answers"][0])
        return trace_of(said)

    async def _write(
        self, path: str, body: Mapping[str, Any], turn: Turn
    ) -> Mapping[str, Any] | None:
        """Show text as it comes, each token signed by who weighed most in it; the trace."""
        last, text = dict[str, Any](), None
        try:
            async with aclosing(self.visit.api.stream(path, body)) as events:
                async for event in events:
                    turn.require()  # who left has it written no further
                    if text is None:
                        self._clear()
                        self._begun = True
                        with self.shown:
                            text = Written()
                    last = event
                    text.add(event)
            turn.require()
        except Refused:
            if text is not None:
                text.end({}, broken=True)
            raise
        trace = trace_of(last)
        if text is not None:
            text.end({} if trace is None else marks_of(trace))
        return trace

    def _clear(self) -> None:
        self._begun = False
        self.shown.clear()
        with self.shown:
            heading("Answer")
