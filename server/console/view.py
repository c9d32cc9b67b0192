"""What every view stands on: a place on the page, and work that ends when nobody waits for it.

Between a request and its answer, the visitor may have asked something else or left. Then what comes
is shown nowhere, and a text that is being written stops.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from nicegui import ui
from nicegui.awaitable_response import AwaitableResponse

from server.console.api import Refused
from server.console.parts import copy_address
from server.console.visit import Visit

log = logging.getLogger("sailplane.console")
T = TypeVar("T")
GLANCE = 0.5
"""Seconds between two looks whether somebody still waits."""
Keep = Callable[[str], "AwaitableResponse | None"]
Handler = Callable[..., Awaitable[None]]


class Left(Exception):
    """Nobody waits for this any more."""


class Turn:
    """One piece of work of a view, such as a question and all that is shown of its answer.

    Args:
        place: where it is shown.
    """

    def __init__(self, place: ui.element) -> None:
        self._place, self._over = place, False

    def end(self) -> None:
        """Something else is asked now."""
        self._over = True

    def require(self) -> None:
        """Go on only where somebody waits.

        Raises:
            Left: the visitor asked something else, or the view is gone with its page.
        """
        if self._over or self._place.is_deleted:
            raise Left

    async def wait(self, coming: Awaitable[T]) -> T:
        """What comes, if somebody still waits for it then; else its work is ended, too.

        Raises:
            Left: see `require`. Refused: the server said no.
        """
        task = asyncio.ensure_future(coming)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=GLANCE)
                self.require()
            return task.result()
        finally:
            task.cancel()


class Turns:
    """Pieces of work of which the newest counts.

    Args:
        place: where they are shown.
    """

    def __init__(self, place: ui.element) -> None:
        self._place, self._now = place, Turn(place)

    def next(self) -> Turn:
        """A new one, which ends the former."""
        self._now.end()
        self._now = Turn(self._place)
        return self._now


class View:
    """One view of a visit.

    Args:
        place: the element that it fills. keep: told the link that brings the view back.

    Attributes:
        stays: whether it goes on while another is looked at; others are built anew, as of then.
        turns: its pieces of work. lasting: one that nothing but the view's end ends.
    """

    stays = False

    def __init__(self, visit: Visit, place: ui.element, keep: Keep) -> None:
        self.visit, self.place, self.keep = visit, place, keep
        self.turns, self.lasting = Turns(place), Turn(place)

    async def build(self, link: str) -> None:
        """Fill the place, with what a link brings back."""
        raise NotImplementedError

    @property
    def link(self) -> str:
        """What stands behind `#` and brings the view back as it is."""
        return ""

    async def copy_link(self, *_: object) -> None:
        """Put an address that brings the view back as it is on the clipboard."""
        if (kept := self.keep(self.link)) is not None:
            await kept
        await copy_address()

    def back(self) -> None:
        """The visitor looks at it again, where it stayed."""

    def careful(self, work: Handler) -> Handler:
        """A handler that tells the visitor what went wrong, and goes on.

        It works in the view's place: what was clicked may be gone by then.
        """

        async def handler(*given: Any) -> None:
            try:
                with self.place:
                    await work(*given)
            except Left:
                return
            except Refused as refused:
                self.tell(refused)
            except Exception:
                log.exception("a handler of the console failed")
                self._notify("The console failed; the server's log has the reason.")

        return handler

    def tell(self, refused: Refused) -> None:
        """Say what the server says; without a key that counts, have the page ask for one."""
        if refused.status == UNKNOWN and self.visit.locked is not None:
            self.visit.locked(refused)
        else:
            self._notify(str(refused))

    def _notify(self, text: str) -> None:
        if not self.place.is_deleted:
            with self.place:
                ui.notify(text, type="negative", close_button="Close", timeout=0, multi_line=True,
                          position="top")  # fmt: skip


UNKNOWN = 401
"""The status of a request whose key does not count."""
