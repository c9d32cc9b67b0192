"""What tests do on a page of the console, and what they know of the libraries it shows."""

from __future__ import annotations

import json

from tests.server.console.servers import ROOT

SAMPLES = {
    path.parent.name: json.loads(path.read_text("utf-8"))["samples"][0]
    for path in sorted((ROOT / "library" / "minilm").glob("*/expert.json"))
}
WRITER_SAMPLES = {
    path.parent.name: json.loads(path.read_text("utf-8"))["samples"][0]
    for path in sorted((ROOT / "library" / "writer").glob("*/expert.json"))
}
TOKENS = "ask&text=Book+a+table+at+the+harbour%2C+I+am+so+happy&router=glider&option=yes&option=no"


def marked(page, name):
    """The element that has this class, for tests to find it by."""
    return page.locator(f".at-{name}").first


def title_of(id, library="minilm"):
    return json.loads((ROOT / "library" / library / id / "expert.json").read_text("utf-8"))["title"]


def try_example(page, id, library="minilm"):
    page.get_by_role("button", name=title_of(id, library), exact=True).click()
    page.get_by_role("heading", name="Who answers").wait_for()


def asked(page):
    """What stands in the field of the input."""
    return page.get_by_role("textbox", name="Input", exact=True).input_value()


def write(page, name, text):
    page.get_by_role("textbox", name=name, exact=name == "Input").fill(text)


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()
