"""Keys in a browser: asked for once, kept for the tab, and what they may not do."""

from __future__ import annotations

import time

import pytest

from server.access.keyfile import write_keys
from server.access.keys import PERMISSIONS, make_key
from tests.server.console.pages import SAMPLES, marked, press, title_of
from tests.server.console.servers import serving


@pytest.fixture(scope="module")
def keyed(tmp_path_factory):
    """A server with keys: `(server, {name: token})`."""
    folder = tmp_path_factory.mktemp("keyed")
    made = {
        "root": make_key("root", PERMISSIONS),
        "plain": make_key("plain", ["infer"]),
    }
    write_keys(folder / "keys.json", [key for key, _ in made.values()])
    with serving(folder, "--keys", str(folder / "keys.json")) as server:
        yield server, {name: token for name, (_, token) in made.items()}


def enter(page, key):
    page.get_by_label("Key of this server").fill(key)
    page.get_by_role("button", name="Use this key").click()


@pytest.mark.slow
def test_a_key_is_asked_for_once_and_kept_for_the_tab(tab_of, keyed):
    server, keys = keyed
    page = tab_of(server).page
    page.goto(f"{server.url}/console/")
    page.get_by_label("Key of this server").wait_for()
    assert "sst2" not in page.content()  # nothing is told before
    enter(page, "sp-wrong")
    page.get_by_text("no such key").wait_for()
    enter(page, keys["root"])
    page.get_by_role("button", name="Ask", exact=True).wait_for()
    page.reload()
    page.get_by_role("button", name="Ask", exact=True).wait_for()
    assert keys["root"] not in page.url
    assert keys["root"] not in (server.folder / "server.log").read_text("utf-8")
    other = tab_of(server).page
    other.goto(f"{server.url}/console/")
    other.get_by_label("Key of this server").wait_for()


@pytest.mark.slow
def test_what_a_key_may_not_do_is_said_in_a_sentence(tab_of, keyed):
    server, keys = keyed
    page = tab_of(server).page
    page.goto(f"{server.url}/console/")
    enter(page, keys["plain"])
    page.get_by_role("button", name="Ask", exact=True).wait_for()
    page.get_by_role("button", name=title_of("trec"), exact=True).click()
    page.get_by_text("This key may not see traces.").wait_for()
    assert marked(page, "answer").inner_text() == SAMPLES["trec"]["answer"]
    page.get_by_role("tab", name="Live").click()
    page.get_by_text("lacks the permission 'metrics'").first.wait_for()
    page.get_by_role("tab", name="Library").click()
    page.get_by_text("need the permission admin").wait_for()
    page.get_by_role("button", name="trec", exact=True).press("Enter")
    page.get_by_role("heading", name=title_of("trec")).wait_for()
    assert page.get_by_role("button", name="Remove", exact=True).count() == 0


@pytest.mark.slow
def test_a_key_that_counts_no_more_is_asked_for_again(tab_of, tmp_path):
    path = tmp_path / "keys.json"
    key, token = make_key("mine", PERMISSIONS)
    write_keys(path, [key])
    with serving(tmp_path, "--keys", str(path)) as server:
        page = tab_of(server).page
        page.goto(f"{server.url}/console/")
        enter(page, token)
        page.get_by_role("button", name="Ask", exact=True).wait_for()
        write_keys(path, [])
        time.sleep(2.5)
        press(page, "Ask")
        page.get_by_text("no such key").wait_for()
        page.get_by_label("Key of this server").wait_for()
