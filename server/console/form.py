"""The form of a request: what is asked, and how it is to be routed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from nicegui import ui
from nicegui.events import ValueChangeEventArguments

from server.console.names import Names
from server.console.parts import named
from server.console.visit import Visit
from server.console.wish import AUTO, MAX_TOKENS, PATHS, Wish

MOST_EXPERTS, MOST_TOKENS = 64, 999_999
CHOICES = "Choices, one a line (empty: the expert's own)"
LEVELS = "Levels from the least to the most, one a line"
SERVERS_OWN = "the server's own"
MODES = {"": "as the router does", "merge": "merge: one mix a request",
         "token": "token: each token its own"}  # fmt: skip


class Form:
    """Fields that make a `Wish`.

    Args:
        asks: whether it has the question, or takes another form's. routes: whether it says how to
            route.
    """

    def __init__(self, visit: Visit, *, asks: bool = True, routes: bool = True) -> None:
        self._visit, self._asks, self._routes = visit, asks, routes
        self._weights: dict[str, float] = {}
        if asks:
            self._question()
        if routes:
            self._routing()
        self.fill(Wish(sort=visit.sort))

    def _question(self) -> None:
        self.sort = (
            ui.toggle(self._visit.sorts, on_change=self._settle).props("no-caps").classes("at-sort")
        )
        self.text = ui.textarea("Input").props("outlined autogrow").classes("wide at-input")
        self.instruction = (
            ui.textarea("Instruction: what the task is (may be empty)")
            .props("outlined autogrow").classes("wide at-asked")
        )  # fmt: skip
        self.options = (
            ui.textarea(CHOICES)
            .props("outlined autogrow").classes("wide at-options")
        )  # fmt: skip
        self.truncate = ui.checkbox("Cut an input that is too long").props("dense")
        self.length = ui.number("Tokens to write at most", min=1, step=1, format="%d").props(
            "outlined dense"
        )

    def _routing(self) -> None:
        visit = self._visit
        self._presets = {"": f"{SERVERS_OWN} ({visit.default})"}
        self._presets |= {p["id"]: f"{p['id']}: {p['says']}" for p in visit.routers}
        with ui.element("div").classes("fields"):
            self.model = Names("Model", self._models, self._settle)
            self.router = (
                ui.select(self._presets, label="Router")
                .props("outlined dense")
                .classes("at-router")
            )
            self.mode = ui.select(MODES, label="Mode").props("outlined dense").classes("at-mode")
            self.top_k = ui.number(
                "Experts at most (0: router's own)", min=0, max=MOST_EXPERTS, format="%d"
            ).props("outlined dense").classes("at-top-k")  # fmt: skip
        self.by_hand = ui.expansion("Weights by hand").classes("wide at-by-hand")
        with self.by_hand:
            self._by_hand()

    def _by_hand(self) -> None:
        """Experts in the place of a router, with a slider each."""
        self.experts = Names("Experts", self._ids, self._sliders, several=True)
        self.experts.field.classes("wide")
        self.sliders = ui.element("div").classes("sliders")

    def _sliders(self) -> None:
        """A slider for every expert that was picked."""
        self._weights = {id: self._weights.get(id, 1.0) for id in self.experts.chosen}
        self.sliders.clear()
        with self.sliders:
            for id, weight in self._weights.items():
                ui.label(id)
                shown = ui.label(f"{weight:.2f}").classes("number")
                most = max(1.0, weight)
                slider = ui.slider(min=0, max=most, step=0.05, value=weight).props("label")
                named(slider, f"Weight of {id}")
                slider.on_value_change(partial(self._weigh, id, shown))
        self._settle()

    def _weigh(
        self, id: str, shown: ui.label, event: ValueChangeEventArguments[float | None]
    ) -> None:
        self._weights[id] = float(event.value or 0)
        shown.set_text(f"{self._weights[id]:.2f}")

    def _settle(self) -> None:
        """Show the fields that count for what is chosen."""
        if self._routes:
            routed = self._routed
            for field in (self.router, self.top_k):
                field.set_enabled(routed)
            self.mode.set_enabled(routed or len(self._weights) > 1)
        if self._asks:
            self.options.set_visibility(self.sort.value in ("choice", "score"))
            self.options.props["label"] = LEVELS if self.sort.value == "score" else CHOICES
            self.options.update()
            self.length.set_visibility(self.sort.value in PATHS)
            self.truncate.set_visibility(self.sort.value not in PATHS)

    def renew(self) -> None:
        """Offer the experts that there are now."""
        if self._routes:
            self.model.know(self._models)
            self.experts.know(self._ids)

    @property
    def _ids(self) -> dict[str, str]:
        return {id: id for id in self._visit.experts}

    @property
    def _models(self) -> dict[str, str]:
        bare = self._visit.backbone
        return {AUTO: "auto: the server chooses", bare: f"{bare}: no expert", **self._ids}

    @property
    def _model(self) -> str:
        return next(iter(self.model.chosen), AUTO)

    @property
    def _routed(self) -> bool:
        return self._model == AUTO and not self._weights

    def wish(self, of: Wish | None = None) -> Wish:
        """What the form says; one that does not ask takes the question of another's."""
        question = of or self._asked()
        if not self._routes:
            return question
        routed, auto = self._routed, self._model == AUTO
        return replace(
            question, model=self._model, router=self.router.value if routed else "",
            mode=(self.mode.value or "") if self.mode.enabled else "",
            top_k=_whole(self.top_k.value, 0, 0, MOST_EXPERTS) if routed else 0,
            experts=dict(self._weights) if auto else {},
        )  # fmt: skip

    def _asked(self) -> Wish:
        return Wish(
            sort=self.sort.value, text=self.text.value or "",
            instruction=(self.instruction.value or "").strip(),
            options=tuple(o.strip() for o in (self.options.value or "").splitlines() if o.strip()),
            max_tokens=_whole(self.length.value, MAX_TOKENS, 1, MOST_TOKENS),
            truncate=bool(self.truncate.value),
        )  # fmt: skip

    def fill(self, wish: Wish) -> None:
        """Have the form say this; a name that is not there stays, for the server to say so."""
        if self._asks:
            self.sort.value = wish.sort if wish.sort in self.sort.options else "choice"
            self.text.value, self.instruction.value = wish.text, wish.instruction
            self.options.value = "\n".join(wish.options)
            self.length.value, self.truncate.value = wish.max_tokens, wish.truncate
        if self._routes:
            self.model.choose([wish.model])
            if wish.router not in self.router.options:  # the server says that there is none
                self.router.set_options(
                    {**self._presets, wish.router: f"{wish.router} (not there)"}
                )
            self.router.value = wish.router
            if wish.mode not in self.mode.options:
                self.mode.set_options({**MODES, wish.mode: f"{wish.mode} (not there)"})
            self.mode.value = wish.mode
            self.top_k.value = wish.top_k
            self._weights = dict(wish.experts)
            self.experts.choose(list(self._weights))
            self.by_hand.value = bool(self._weights)
        self._settle()


def _whole(said: float | None, usual: int, least: int, most: int) -> int:
    """A field's number within its bounds: the field itself minds them only when it is left."""
    return usual if said is None else max(least, min(most, int(said)))
