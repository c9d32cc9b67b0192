"""What the commands show while they work."""

import io

import pytest
from rich.console import Console

from server.cli import common


@pytest.mark.parametrize(("patience", "shown"), [(0.0, True), (60.0, False)])
def test_a_spinner_says_how_far_it_is_once_it_takes_long(monkeypatch, patience, shown):
    written = io.StringIO()
    monkeypatch.setattr(common, "notes", Console(file=written, force_terminal=True, width=100))
    monkeypatch.setattr(common, "PATIENCE", patience)
    with common.busy("Reading") as told:
        told(1234, 10_000)
        common.notes.print("a line makes the spinner be drawn again")
    assert "Reading" in written.getvalue()
    assert ("1,234 of 10,000" in written.getvalue()) is shown
