"""How an answer is shown, with all that its trace tells: who was asked, who won which token, when.

Takes what the API said; asks nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from server.console import reading
from server.console.heat import Heat
from server.console.palette import REST, Mark, marks
from server.console.parts import bar, heading, legend, letter, named, note

Trace = Mapping[str, Any]
SHOWN = 12
NOTHING, BROKEN = "Nothing was written.", "It broke off."


def marks_of(trace: Trace) -> dict[str, Mark]:
    """A mark for every expert of a trace."""
    return marks(reading.in_order(trace))


def show_answer(answer: Mapping[str, Any]) -> None:
    """The answer to a question, with its probabilities."""
    with ui.element("p").classes("said at-answer").props("role=status"):
        ui.label(reading.spoken(answer))
    shares = sorted(reading.shares(answer), key=lambda pair: -pair[1])
    with ui.element("div").classes("shares"):
        for value, share in shares[:SHOWN]:
            ui.label(value).classes("share-name")
            bar(share, "var(--accent)", f"{value}: {share:.1%}")
            ui.label(f"{share:.1%}").classes("number")
    if len(shares) > SHOWN:
        note(f"and {len(shares) - SHOWN} less likely ones")


class Written:
    """A text as it comes, token by token, each underlined by who weighed most in writing it."""

    def __init__(self) -> None:
        self._marks: dict[str, Mark] = {}
        self._signed: list[tuple[ui.label, str]] = []
        # Read out once, when it is whole: a screen reader would begin anew at every token.
        self.text = ui.element("p").classes("said written at-answer").props("aria-busy=true")
        self._legend = ui.element("div")
        self._ended = note("").props("role=status")
        self._reason, self._wrote = "", False

    def add(self, event: Mapping[str, Any]) -> None:
        """Show what is new."""
        wrote = event.get("routing", {}).get("wrote") or [{}]
        for choice in event["choices"]:
            self._reason = choice.get("finish_reason") or self._reason
            with self.text:
                said = reading.piece_of(choice)
                piece = ui.label(said).classes("piece")
            self._wrote = self._wrote or bool(said.strip())
            if wrote[-1]:
                self._sign(piece, wrote[-1])

    def end(self, known: Mapping[str, Mark], *, broken: bool = False) -> None:
        """No more comes; `known`: the marks of the answer's experts. broken: it is not whole."""
        self.text.props(remove="aria-busy")
        why = BROKEN if broken else reading.ended(self._reason)
        self._ended.set_text(why if self._wrote else NOTHING)
        self._legend.clear()
        for piece, best in self._signed:
            if best in known:
                piece.style(f"border-color: {known[best].colour}")

    def _sign(self, piece: ui.label, by: Mapping[str, float]) -> None:
        best = max(by, key=by.__getitem__)
        if best not in self._marks:
            self._marks = marks([*self._marks, best])
            self._legend.clear()
            with self._legend:
                legend(self._marks)
        self._signed.append((piece, best))
        piece.style(f"border-color: {self._marks[best].colour}").tooltip(
            ", ".join(f"{id} {weight:.2f}" for id, weight in by.items())
        )


def show_trace(trace: Trace, heat: bool = True) -> None:
    """All of a trace, part by part."""
    found = marks_of(trace)
    show_remarks(trace)
    show_instruction(trace)
    show_candidates(trace, found)
    if heat:
        show_heat(trace, found)
    show_stages(trace.get("stages") or [])


def show_remarks(trace: Trace) -> None:
    """What one should know before one believes the answer."""
    for remark in reading.remarks(trace):
        note(remark, "warning")


def show_instruction(trace: Trace) -> None:
    """The instruction that was used, and who wrote it."""
    if not trace["instruction"]:
        return
    heading("Instruction", 3)
    writer = {"caller": "by who asks", "template": "by the server's template"}.get(
        trace["writer"], f"by {trace['writer']}"
    )
    ui.label(trace["instruction"]).classes("instruction").classes("at-instruction")
    note(f"written {writer}")


def show_candidates(trace: Trace, found: Mapping[str, Mark]) -> None:
    """Experts that were looked at, as bars, and the reason in words."""
    selection = trace["selection"]
    heading("Who answers", 3)
    ui.label(selection["reason"] or "You said who answers.").classes("reason").classes("at-reason")
    facts = [f"router {trace['router']}", f"mode {selection['mode']}",
             f"strength {selection['strength']:.2f}"]  # fmt: skip
    if trace["confidence"] is not None:
        facts.append(f"confidence {trace['confidence']:.2f}")
    if trace["alpha"] is not None:
        facts.append(f"alpha {trace['alpha']:.2f}")
    note(", ".join(facts))
    rows = reading.candidates(trace)
    with named(ui.element("ul").classes("candidates"), "Candidate experts"):
        for row in rows[:SHOWN]:
            show_candidate(row, found[row.id])
    if len(rows) > SHOWN:
        note(f"and {len(rows) - SHOWN} more")


def show_candidate(row: reading.CandidateRow, mark: Mark) -> None:
    """One expert: its letter, weight and score, and what the score is made of."""
    unknown = "named by you" if row.named else "score not told"
    score = unknown if row.score is None else f"score {row.score:.3f}"
    chosen = "chosen" if row.chosen else "not chosen"
    views = ", ".join(f"{name} {value:.2f}" for name, value in row.views.items())
    says = f"{row.id}: {chosen}, weight {row.weight:.2f}, {score}"
    with ui.element("li").classes(f"candidate {'chosen' if row.chosen else ''}"):
        letter(mark)
        ui.label(row.id).classes("expert-name")
        colour = mark.colour if row.chosen else REST
        bar(row.weight, colour, f"{says}; {views}" if views else says)
        ui.label(f"{row.weight:.2f}" if row.chosen else "").classes("number")
        ui.label(score).classes("score").tooltip(views or score)


def show_heat(trace: Trace, found: Mapping[str, Mark]) -> Heat | None:
    """The heat map, with its legend."""
    map = reading.heat_map(trace, found)
    if map is None:
        return None
    heading("Tokens", 3)
    if map.even:
        note(reading.why_even(trace))
    legend({expert["id"]: found[expert["id"]] for expert in map.experts})
    heat = Heat()
    heat.show(map)
    return heat


def show_stages(stages: Sequence[Mapping[str, Any]]) -> None:
    """Time per stage, as a waterfall."""
    rows = reading.waterfall(stages)
    if not rows:
        return
    heading("Time", 3)
    whole = max(r.begins + r.milliseconds for r in rows)
    note(f"{whole:.1f} ms in all; a batch shares its stages")
    with named(ui.element("ul").classes("waterfall"), "Stages"):
        for row in rows:
            with ui.element("li").classes("stage"):
                ui.label(row.name).classes("stage-name").tooltip(row.says or row.name)
                says = f"{row.says}: {row.milliseconds:.1f} ms from {row.begins:.1f} ms on"
                with named(ui.element("div").classes("lane").props("role=img"), says):
                    ui.element("div").classes("lane-part").style(
                        f"left: {row.offset:.2%}; width: max(2px, {row.share:.2%})"
                    )
                ui.label(f"{row.milliseconds:.1f} ms").classes("number")
