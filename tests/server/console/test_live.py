"""The live view in a browser."""

from __future__ import annotations

import httpx
import pytest

from tests.server.console.pages import marked


@pytest.fixture
def decide():
    body = {"model": "auto", "input": "Book a table.", "questions": [
        {"type": "choice", "instructions": "What does the user want?",
         "choices": [{"value": "book a restaurant"}, {"value": "play music"}]}]}  # fmt: skip
    return lambda url, **said: httpx.post(
        f"{url}/v1/decisions", json=body, **said
    ).raise_for_status()


@pytest.mark.slow
def test_the_live_view_follows_the_server(tab, picture, decide):
    page = tab.open("live")
    page.get_by_text("without a reload").wait_for()
    for _ in range(40):
        decide(tab.server.url)
    page.wait_for_function(
        "() => parseFloat(document.querySelector('.card-value').innerText) > 1", timeout=15_000
    )
    marked(page, "recent").get_by_role("cell", name="sailplane").first.wait_for()
    page.wait_for_timeout(4500)
    picture(page, "console-live")
