"""A field that takes one or several names out of many.

Up to a few hundred it is a list to choose from. Of more it is a line to type into, which is as
quick with ten thousand; a name that is not there is refused by the server, in its own words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nicegui import ui

FEW = 300
LOOK = "outlined dense"
HINT = "Library lists them"


class Names:
    """See the module.

    Args:
        known: names, and how they are shown. changed: called when others are chosen. several:
            whether more than one may be.
    """

    def __init__(
        self, label: str, known: Mapping[str, str], changed: Callable[[], object], *,
        several: bool = False,
    ) -> None:  # fmt: skip
        self._several = several
        self._lists = len(known) <= FEW
        if self._lists:
            self.field: Any = ui.select(
                dict(known), label=label, with_input=True, multiple=several, on_change=changed
            ).props(f"{LOOK} use-chips" if several else LOOK)
        else:
            said = f"{label}, with commas between ({HINT})" if several else f"{label} ({HINT})"
            self.field = ui.input(said).props(f"{LOOK} debounce=300")
            self.field.on_value_change(changed)

    @property
    def chosen(self) -> list[str]:
        """The names, in the order in which they were chosen."""
        value: Any = self.field.value
        if self._lists:
            return list(value or ()) if self._several else [value] if value else []
        names = re.split(r"[,\s]+", value or "") if self._several else [(value or "").strip()]
        return list(dict.fromkeys(filter(None, names)))

    def choose(self, names: Sequence[str]) -> None:
        """Choose these, also those that are not there: the server says so when they are asked."""
        if self._lists:
            odd = {name: f"{name} (not there)" for name in names if name not in self.field.options}
            if odd:
                self.field.set_options({**self.field.options, **odd})
            self.field.value = list(names) if self._several else next(iter(names), None)
        else:
            self.field.value = ", ".join(names)

    def know(self, known: Mapping[str, str]) -> None:
        """Offer these names from now on; what is chosen stays, also where it is gone."""
        if self._lists:
            chosen = self.chosen
            self.field.set_options(dict(known))
            self.choose(chosen)
