"""The library in a browser: searched, mapped and changed."""

from __future__ import annotations

import shutil
import time

import httpx
import pytest

from tests.server.console.pages import SAMPLES, marked, press, try_example
from tests.server.console.servers import serving


@pytest.mark.slow
def test_an_adapter_is_loaded_answers_and_is_removed(tab, picture):
    folder = tab.server.adapters / "mine"
    folder.mkdir(exist_ok=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(tab.server.library / "sst2" / name, folder)
    page = tab.open("library")
    page.get_by_text("Load an expert").click()
    page.get_by_label("Folder on the server").fill(str(tab.server.adapters / "nowhere"))
    page.get_by_label("Name", exact=True).fill("my-reviews")
    press(page, "Load")
    marked(page, "why").get_by_text("no such folder").wait_for()
    page.get_by_label("Folder on the server").fill(str(folder))
    page.get_by_role("textbox", name="Instruction").fill("Say whether a visitor liked the museum.")
    press(page, "Load")
    page.get_by_role("heading", name="my-reviews").wait_for()
    listed = httpx.get(f"{tab.server.url}/v1/experts/my-reviews").json()
    assert listed["instructions"] == ["Say whether a visitor liked the museum."]
    page.get_by_label("A task in a sentence").fill("Did the visitor like the museum?")
    page.get_by_role("button", name="Where is it?").click()
    assert marked(page, "near").get_by_role("button").first.inner_text() == "my-reviews"
    page.get_by_role("heading", name="Map of instructions").evaluate("e => e.scrollIntoView()")
    picture(page, "console-library")
    press(page, "Remove")
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    page.get_by_text("my-reviews is removed.").wait_for()
    assert httpx.get(f"{tab.server.url}/v1/experts/my-reviews").status_code == 404


@pytest.mark.slow
def test_what_somebody_else_removed_is_said_and_gone(tab):
    shutil.copytree(tab.server.library / "trec", tab.server.adapters / "brief", dirs_exist_ok=True)
    (tab.server.adapters / "brief" / "expert.json").unlink()
    body = {"source": str(tab.server.adapters / "brief"), "id": "brief"}
    httpx.post(f"{tab.server.url}/v1/experts", json=body).raise_for_status()
    page = tab.open("library&brief")
    page.get_by_role("heading", name="brief").wait_for()
    httpx.delete(f"{tab.server.url}/v1/experts/brief").raise_for_status()
    press(page, "Remove")
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    page.get_by_text("has no expert 'brief'").wait_for()
    page.get_by_text("18 of 18 experts").wait_for()
    assert page.get_by_role("heading", name="brief").count() == 0


@pytest.mark.slow
def test_forms_that_stayed_know_the_experts_that_came(tab):
    page = tab.open()
    page.get_by_role("tab", name="Library").click()
    page.get_by_text("18 of 18 experts").wait_for()
    body = {"source": str(tab.server.adapters / "late"), "id": "late", "instructions": ["Be late."]}
    shutil.copytree(tab.server.library / "trec", tab.server.adapters / "late", dirs_exist_ok=True)
    (tab.server.adapters / "late" / "expert.json").unlink()
    httpx.post(f"{tab.server.url}/v1/experts", json=body).raise_for_status()
    try:
        page.get_by_role("tab", name="Live").click()
        page.get_by_text("Recent requests").wait_for()
        page.get_by_role("tab", name="Library").click()
        page.get_by_text("19 of 19 experts").wait_for()
        page.get_by_role("tab", name="Ask").click()
        page.get_by_role("combobox", name="Model").fill("late")
        page.get_by_role("option", name="late").click()
    finally:
        httpx.delete(f"{tab.server.url}/v1/experts/late").raise_for_status()


@pytest.mark.slow
def test_what_was_asked_is_a_point_on_the_map(tab):
    page = tab.open()
    try_example(page, "mrpc")
    page.get_by_role("tab", name="Library").click()
    assert marked(page, "near").get_by_role("button").first.inner_text() == "mrpc"


IN_SIGHT = """() => {
  const top = document.querySelector(".at-one").getBoundingClientRect().top;
  return top >= 0 && top < innerHeight; }"""


@pytest.mark.slow
def test_experts_are_searched_and_shown(tab):
    page = tab.open("library")
    page.get_by_label("Search").fill("emotion")
    press(page, "tweet_emotion")
    page.get_by_role("heading", name="Emotion of a tweet").wait_for()
    page.wait_for_function(IN_SIGHT)
    assert page.get_by_role("button", name="trec", exact=True).count() == 0
    page.get_by_role("link", name=SAMPLES["tweet_emotion"]["input"]).click()
    press(page, "Ask")
    page.get_by_role("heading", name="Who answers").wait_for()
    assert marked(page, "answer").inner_text() == SAMPLES["tweet_emotion"]["answer"]


@pytest.fixture(scope="module")
def thousands(tmp_path_factory):
    """A server over 10,000 experts, which are made once and kept beside the benchmarks'."""
    from benchmarks.many import Maker
    from experts.backbones import open_backbone

    library = Maker(open_backbone("demo")).library(10_000)
    with serving(tmp_path_factory.mktemp("thousands"), library=library) as server:
        yield server


WALK_MAP = """() => new Promise(done => {
  const map = document.querySelector(".at-map canvas"), box = map.getBoundingClientRect();
  const began = performance.now();
  let frames = 0, last = began, worst = 0;
  const at = { bubbles: true, cancelable: true };
  const step = (now) => {
    frames += 1; worst = Math.max(worst, now - last); last = now;
    const x = box.left + 100 + frames * 3 % 400, y = box.top + 100 + frames % 200;
    const where = { ...at, clientX: x, clientY: y };
    map.dispatchEvent(new MouseEvent("mousemove", where));
    if (frames % 10 === 0)
      map.dispatchEvent(new WheelEvent("wheel", { ...where, deltaY: frames % 20 ? -120 : 120 }));
    if (now - began < 3000) requestAnimationFrame(step); else done({ rate: frames / 3, worst });
  };
  requestAnimationFrame(step); })"""


@pytest.mark.slow
def test_ten_thousand_experts_stay_fluid(tab_of, thousands):
    tab = tab_of(thousands)
    page = tab.open()
    began = time.perf_counter()
    page.reload()
    page.get_by_role("button", name="Ask", exact=True).wait_for()
    assert time.perf_counter() - began < 3.0
    page.get_by_role("tab", name="Library").click()
    page.get_by_text("40000 instructions of 10000 experts").wait_for()
    page.get_by_label("Search").fill("e04321")
    page.get_by_role("button", name="e04321", exact=True).wait_for()
    page.get_by_label("A task in a sentence").fill("Do the work of another expert.")
    page.get_by_role("button", name="Where is it?").click()
    page.get_by_role("heading", name="Nearest").wait_for()
    assert marked(page, "near").locator(".sample").count() == 8
    told = page.evaluate(WALK_MAP)
    assert told["rate"] > 20, told
    assert tab.faults == []
