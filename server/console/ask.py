"""The view that asks: a form, and the answer with its trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nicegui import ui

from server.console.answer import show_answer, show_trace
from server.console.examples import Example, examples
from server.console.form import Form
from server.console.palette import marks
from server.console.parts import heading, note, snippets, told
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
                    self.button = ui.button("Ask", on_click=self.ask).mark("ask")
                    ui.button("Copy link", on_click=self._copy).props("flat")
            self.shown = ui.element("section").classes("right").props('aria-label="Answer"')
        with self.shown:
            note("The answer comes here, with who gave it and why.")

    def _examples(self) -> None:
        """One example an expert, to click."""
        found = examples(self.visit.experts)
        if not found:
            return
        with (
            ui.expansion("Examples, one an expert", value=True).classes("wide").mark("examples"),
            ui.element("div").classes("chips"),
        ):
            for example in found:
                button = ui.button(example.title, on_click=lambda e=example: self._try(e))
                button.props("flat dense no-caps").mark(f"example-{example.expert}")

    async def _try(self, example: Example) -> None:
        self.form.fill(example.wish)
        await self.ask()

    async def _copy(self) -> None:
        self._keep(self.form.wish().to_link())
        await ui.clipboard.write(await ui.run_javascript("return location.href"))
        ui.notify("Copied.")

    @told
    async def ask(self) -> None:
        """Ask what the form says, and show what comes."""
        wish = self.form.wish()
        self._keep(wish.to_link())
        self.button.props("loading")
        try:
            if wish.sort == "text":
                await self._write(wish)
            else:
                await self._decide(wish)
        finally:
            self.button.props(remove="loading")

    async def _decide(self, wish: Wish) -> None:
        said = await self.visit.api.post(wish.path, wish.body())
        self.shown.clear()
        with self.shown:
            heading("Answer")
            show_answer(said["answers"][0])
            self._explain(wish, said["routing"]["questions"][0])

    async def _write(self, wish: Wish) -> None:
        """Text as it comes, each token coloured by who wrote it."""
        self.shown.clear()
        with self.shown:
            heading("Answer")
            text = ui.element("p").classes("said written").props('role="status"').mark("answer")
            rest = ui.element("div").classes("stack")
        last: Mapping[str, Any] = {}
        found = marks(())
        async for event in self.visit.api.stream(wish.path, wish.body()):
            last = event
            for choice in event["choices"]:
                wrote = event.get("routing", {}).get("wrote") or [{}]
                best = max(wrote[-1].items(), key=lambda pair: pair[1], default=None)
                found = marks([*found, *([best[0]] if best else [])])
                with text:
                    piece = ui.label(choice["text"]).classes("piece")
                if best:
                    mark = found[best[0]]
                    piece.style(f"border-color: {mark.colour}").tooltip(
                        ", ".join(f"{id} {w:.2f}" for id, w in wrote[-1].items())
                    )
        with rest:
            self._explain(wish, last["routing"]["prompts"][0]["trace"])

    def _explain(self, wish: Wish, trace: Mapping[str, Any] | None) -> None:
        if trace is None:
            note("This key may not see traces.")
        else:
            show_trace(trace)
        snippets(self.visit, "POST", wish.path, wish.body())
