"""The live view in a browser."""

from __future__ import annotations

import itertools
import json
import threading

import httpx
import pytest

from tests.server.console.pages import marked
from tests.server.console.servers import ROOT


@pytest.fixture
def traffic(demo):
    """Somebody who asks examples of many experts, by turns of routers, while the test runs."""
    over, refused = threading.Event(), []

    def ask():
        with httpx.Client(base_url=demo.url, timeout=30) as client:
            for body in itertools.cycle(questions()):
                if over.wait(0.04):
                    return
                if (said := client.post("/v1/decisions", json=body)).is_error:
                    refused.append(said.text)

    asking = threading.Thread(target=ask)
    asking.start()
    yield
    over.set()
    asking.join(60)
    assert not asking.is_alive()
    assert not refused


def questions():
    for i, path in enumerate(sorted((ROOT / "library" / "minilm").glob("*/expert.json"))):
        card = json.loads(path.read_text("utf-8"))
        choices = [{"value": label["value"]} for label in card["labels"][:9]]
        asked = {"type": "choice", "instructions": card["instructions"][0], "choices": choices}
        if len(choices) > 1:
            routing = {"router": "glider"} if i % 6 == 0 else {}
            yield {"model": "auto", "input": card["samples"][0]["input"], "routing": routing,
                   "questions": [asked]}  # fmt: skip


@pytest.mark.slow
def test_the_live_view_follows_the_server(tab, picture, traffic):
    page = tab.open("live")
    page.get_by_text("without a reload").wait_for()
    page.wait_for_function(
        "() => parseFloat(document.querySelector('.card-value').innerText) > 1", timeout=15_000
    )
    marked(page, "recent").get_by_role("cell", name="sailplane").first.wait_for()
    page.wait_for_timeout(12_000)
    picture(page, "console-live")
