"""The view that asks: a form, and the answer with its trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nicegui import ui

from server.console.answer import Written, show_answer, show_trace
from server.console.api import Refused
from server.console.examples import Example, examples
from server.console.form import Form
from server.console.parts import heading, note, snippets, told
from server.console.reading import trace_of
from server.console.visit import Visit
from server.console.wish import Wish

Kept = Callable[[str], object]


class Ask:
    """One form and its answer.

    Args:
        keep: told the link of what was asked.
    """

    def __init__(self, visit: Visit, keep: Kept) -> None:
        self.visit, self._keep = visit, keep
        with ui.element("div").classes("columns"):
            with ui.element("section").classes("left").props('aria-label="Question"'):
                self._examples()
                self.form = Form(visit)
                with ui.row():
                    self.button = ui.button("Ask", on_click=self.ask).classes("at-ask")
                    ui.button("Copy link", on_click=self._copy).props("flat")
            self.shown = ui.element("section").classes("right").props('aria-label="Answer"')
        with self.shown:
            note("The answer comes here, with who gave it and why.")

    def _examples(self) -> None:
        """One example an expert, to click."""
        found = examples(self.visit.experts, self.visit.sort)
        if not found:
            return
        with (
            ui.expansion("Examples, one an expert", value=True)
            .classes("wide")
            .classes("at-examples"),
            ui.element("div").classes("chips"),
        ):
            for example in found:
                button = ui.button(example.title, on_click=lambda e=example: self._try(e))
                button.props("flat dense no-caps").classes(f"at-example-{example.expert}")

    async def _try(self, example: Example) -> None:
        self.form.fill(example.wish)
        await self.ask()

    async def _copy(self) -> None:
        self._keep(self.form.wish().to_link())
        ui.clipboard.write(await ui.run_javascript("return location.href"))
        ui.notify("Copied.")

    @told
    async def ask(self) -> None:
        """Ask what the form says, and show what comes."""
        wish = self.form.wish()
        self._keep(wish.to_link())
        self.button.props("loading")
        try:
            await self._ask(wish)
        except Refused as refused:
            if not self.visit.refused_trace(refused):
                raise
            await self._ask(wish)
        finally:
            self.button.props(remove="loading")

    async def _ask(self, wish: Wish) -> None:
        body = wish.body("tokens" if self.visit.traced else None)
        if wish.writes:
            trace = await self._write(wish.path, body)
        else:
            trace = await self._decide(wish.path, body)
        with self.shown:
            if trace is None:
                note("This key may not see traces.")
            else:
                self.visit.asked = trace["instruction"]
                show_trace(trace)
            snippets(self.visit, "POST", wish.path, body)

    async def _decide(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Show an answer; its trace."""
        said = await self.visit.api.post(path, body)
        self._clear()
        with self.shown:
            show_answer(said["answers"][0])
        return trace_of(said)

    async def _write(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Show text as it comes, each token coloured by who wrote it; the trace."""
        last, text = dict[str, Any](), None
        async for event in self.visit.api.stream(path, body):
            if text is None:
                self._clear()
                with self.shown:
                    text = Written()
            last = event
            text.add(event)
        return trace_of(last)

    def _clear(self) -> None:
        self.shown.clear()
        with self.shown:
            heading("Answer")
