"""A real Chromium before a real server over a copy of the demo library.

`pytest tests/server/console -m "" --images docs/images` also keeps the pictures that docs show.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.server.console.servers import Server, serving

CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome")
                 if (p := shutil.which(n))), None)  # fmt: skip
ARGUMENTS = ["--no-sandbox", "--disable-background-networking", "--disable-dev-shm-usage"]
DESK = {"width": 1400, "height": 1000}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--images", type=Path, metavar="DIR", help="keep pictures of the console there"
    )


@pytest.fixture(scope="module")  # while it is there, no test may have an event loop of its own
def browser() -> Iterator[Any]:
    for name, how in (("playwright", "pip install playwright"), ("nicegui", "pip install nicegui")):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: {how}")
    if CHROMIUM is None:
        pytest.skip("there is no browser: apt-get install -y chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Tab:
    """A tab of the browser, and what went wrong in it."""

    page: Any
    server: Server
    faults: list[str]

    def open(self, link: str = "") -> Any:
        """The console, at a view."""
        self.page.goto(f"{self.server.url}/console/#{link}")
        self.page.get_by_role("tab", name="Ask").wait_for()
        return self.page


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over a copy of the demo library, with a routing log and a folder of adapters."""
    with serving(tmp_path_factory.mktemp("demo")) as server:
        yield server


@pytest.fixture
def tab_of(browser: Any) -> Iterator[Callable[..., Tab]]:
    """`tab_of(server)`: a fresh tab, of a browser that knows nothing yet."""
    opened: list[Any] = []

    def make(server: Server, **said: Any) -> Tab:
        context = browser.new_context(**{"viewport": DESK, "color_scheme": "light", **said})
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        opened.append(context)
        page, faults = context.new_page(), []
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "request",
            lambda request: (
                faults.append(request.url)
                if not request.url.startswith((server.url, "data:", "ws:", "blob:"))
                else None
            ),
        )
        return Tab(page, server, faults)

    yield make
    for context in opened:
        context.close()


@pytest.fixture
def tab(tab_of: Callable[..., Tab], demo: Server) -> Iterator[Tab]:
    """A tab before the demo server; nothing may go wrong in it, and nothing come from elsewhere."""
    made = tab_of(demo)
    yield made
    assert made.faults == []


@pytest.fixture
def picture(request: pytest.FixtureRequest) -> Callable[[Any, str], None]:
    """`picture(page, name)`: keep a picture, where somebody wants them."""
    folder = request.config.getoption("--images", default=None)

    def keep(page: Any, name: str) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            page.mouse.move(0, 0)
            page.wait_for_timeout(500)  # colours fade in
            page.screenshot(path=folder / f"{name}.png", animations="disabled")

    return keep
