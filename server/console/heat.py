"""The token heat map as an element of the page; what it draws is in `heat.js`."""

from __future__ import annotations

from nicegui import ui

from server.console.reading import HeatMap


class Heat(ui.element, component="heat.js"):
    """Shows a `HeatMap`, once it was given one."""

    def show(self, map: HeatMap | None) -> None:
        """Draw a map; None draws nothing.

        It goes to the browser and stays there: kept here it would be sent again at every change.
        """
        self.run_method("show", map.as_json() if map else None)
