"""Asking in a browser: answers, text as it is written, tokens and who won them, links."""

from __future__ import annotations

import json
import re

import httpx
import pytest

from tests.server.console.pages import (
    SAMPLES,
    TOKENS,
    WRITER_SAMPLES,
    asked,
    marked,
    press,
    title_of,
    try_example,
    write,
)
from tests.server.console.servers import serving


def test_the_first_answer_names_its_expert(tab, picture):
    """The one that `make test` runs."""
    page = tab.open()
    try_example(page, "snips")
    assert marked(page, "answer").inner_text() == SAMPLES["snips"]["answer"]
    chosen = page.locator(".candidate.chosen .expert-name")
    assert chosen.all_inner_texts() == ["snips"]
    picture(page, "console-ask")


@pytest.mark.slow
@pytest.mark.parametrize("id", SAMPLES)
def test_each_experts_example_is_answered_right_and_by_that_expert(tab, id):
    page = tab.open()
    try_example(page, id)
    assert marked(page, "answer").inner_text() == SAMPLES[id]["answer"]
    assert page.locator(".candidate.chosen .expert-name").first.inner_text() == id
    assert SAMPLES[id]["input"][:20] in asked(page)


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("writer"), library="writer") as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("id", WRITER_SAMPLES)
def test_text_streams_and_is_right(tab_of, writer, id):
    page = tab_of(writer).open()
    try_example(page, id, "writer")
    assert marked(page, "answer").inner_text().strip() == WRITER_SAMPLES[id]["answer"]
    assert page.locator(".candidate.chosen .expert-name").first.inner_text() == id


@pytest.mark.slow
def test_a_text_that_was_cut_says_so(tab_of, writer):
    page = tab_of(writer).open()
    page.get_by_role("spinbutton", name="Tokens to write at most").fill("1")
    write(page, "Input", "Go on.")
    press(page, "Ask")
    page.get_by_text("It stopped at the most tokens").wait_for()


@pytest.mark.slow
def test_the_heat_map_is_walked_by_keys_and_heard(tab, picture):
    page = tab.open(TOKENS)  # which asks
    frame = page.get_by_role("application")
    frame.wait_for()
    said = page.locator(".heat-said")
    said.get_by_text("[CLS]").wait_for()
    assert "encoder layer 0" in said.inner_text()
    frame.focus()
    for key, word in (("ArrowRight", '"book"'), ("ArrowDown", "layer 1"), ("End", "[SEP]"),
                      ("Home", "[CLS]")):  # fmt: skip
        page.keyboard.press(key)
        page.wait_for_function(
            "w => document.querySelector('.heat-said').innerText.includes(w)", arg=word
        )
    weights = [float(w) for w in re.findall(r"\d\.\d\d", said.inner_text())]
    assert weights == sorted(weights, reverse=True)
    picture(page, "console-tokens")
    page.get_by_label("every site").check()
    page.wait_for_function(
        "() => document.querySelector('.heat-said').innerText.includes('attention')"
    )
    box = frame.bounding_box()
    page.mouse.move(box["x"] + 190 + 4 * 22 + 5, box["y"] + 92 + 2 * 22 + 5)
    page.wait_for_function(
        "() => document.querySelector('.heat-hover').innerText.startsWith('\"at\" in 0 ')"
    )


LARGE = """(() => {
  const weight = (e, n) => (_, t) => ((t * 7 + n + e * 3) % 10) / 10;
  const row = (n) => ({ site: `encoder.layer.${n / 6 | 0}.part${n % 6}`, stack: "encoder",
    layer: n / 6 | 0, part: `part${n % 6}`, first: 0,
    weights_ET: [0, 1, 2].map((e) => Array.from({ length: 512 }, weight(e, n))) });
  const marks = [["#0072b2", "A"], ["#e69f00", "B"], ["#009e73", "C"]];
  const heat = document.querySelector(".heat");
  getElement(parseInt(heat.id.slice(1))).show({
    tokens: Array.from({ length: 512 }, (_, t) => ` word${t}`), written: 0, even: false,
    experts: marks.map(([colour, letter]) => ({ id: letter, colour, letter, ink: "#fff" })),
    rows: Array.from({ length: 36 }, (_, n) => row(n)) });
})()"""
SCROLL = """() => new Promise(done => {
  const frame = document.querySelector(".heat-frame"), began = performance.now();
  let frames = 0, last = began, worst = 0;
  const step = (now) => {
    frames += 1; worst = Math.max(worst, now - last); last = now;
    frame.scrollLeft += 40; frame.scrollTop += 2;
    if (now - began < 2000) requestAnimationFrame(step);
    else done({ rate: frames / 2, worst, wide: frame.scrollWidth, left: frame.scrollLeft });
  };
  requestAnimationFrame(step); })"""


@pytest.mark.slow
def test_a_heat_map_of_512_tokens_and_36_sites_scrolls_smoothly(tab):
    page = tab.open(TOKENS)  # which asks
    page.get_by_role("application").wait_for()
    page.evaluate(LARGE)
    page.get_by_label("every site").check()
    page.wait_for_timeout(500)
    told = page.evaluate(SCROLL)
    assert told["wide"] > 11_000
    assert told["left"] > 1000
    assert told["rate"] > 30, told


@pytest.mark.slow
def test_the_newest_question_is_answered_and_a_refusal_takes_the_answers_place(tab):
    page = tab.open()
    write(page, "Choices", "yes\nno")
    for text in ("The first one", "The second one"):  # at once
        write(page, "Input", text)
        press(page, "Ask")
    page.locator(".heat-text").get_by_text("second").wait_for()
    page.wait_for_timeout(1000)
    assert "first" not in page.locator(".heat-text").inner_text()
    assert "second" in page.evaluate("() => location.hash")
    write(page, "Input", "")
    press(page, "Ask")
    marked(page, "refused").get_by_text("Must not be empty").wait_for()
    assert page.locator(".at-answer").count() == 0


@pytest.mark.slow
def test_the_last_of_two_quick_questions_is_answered(tab):
    page = tab.open()
    page.get_by_role("button", name=title_of("trec"), exact=True).click()
    try_example(page, "sick")
    page.wait_for_timeout(1500)
    assert marked(page, "answer").inner_text() == SAMPLES["sick"]["answer"]
    assert page.get_by_role("heading", name="Who answers").count() == 1


@pytest.mark.slow
def test_an_input_that_is_too_long_is_cut_where_one_says_so(tab):
    page = tab.open()
    write(page, "Input", "Gliders and thermals. " * 200)
    write(page, "Choices", "yes\nno")
    press(page, "Ask")
    marked(page, "refused").get_by_text("shorten it").wait_for()
    page.get_by_role("checkbox", name="Cut an input that is too long").click()
    press(page, "Ask")
    page.get_by_text(re.compile(r"input was cut from \d+ to \d+ tokens")).wait_for()
    assert page.locator(".at-refused").count() == 0


@pytest.mark.slow
def test_a_link_brings_everything_back(tab, tab_of, demo):
    page = tab.open(TOKENS)
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("Copied.").wait_for()
    link = page.evaluate("() => navigator.clipboard.readText()")
    again = tab_of(demo)
    again.page.goto(link)
    again.page.get_by_role("button", name="Ask", exact=True).wait_for()
    assert asked(again.page).startswith("Book a table")
    assert again.page.get_by_role("textbox", name="Choices").input_value() == "yes\nno"
    assert "glider" in again.page.get_by_role("combobox", name="Router").input_value()


@pytest.mark.slow
def test_a_link_is_of_the_form_as_it_stands(tab):
    page = tab.open(TOKENS)
    marked(page, "answer").wait_for()
    write(page, "Input", "Something else")
    press(page, "Copy link")
    page.get_by_text("Copied.").wait_for()
    assert "Something+else" in page.evaluate("() => navigator.clipboard.readText()")


@pytest.mark.slow
def test_a_link_to_a_router_that_is_not_there_says_so(tab):
    page = tab.open("ask&text=A.&option=a&option=b&router=nowhere")
    marked(page, "refused").get_by_text("nowhere").wait_for()


@pytest.mark.slow
def test_what_is_shown_can_be_done_by_curl(tab):
    page = tab.open()
    try_example(page, "trec")
    answer = marked(page, "answer").inner_text()
    page.get_by_text("The same by curl and Python").click()
    curl = page.locator(".snippets .code").first.inner_text()
    body = json.loads(re.search(r"-d '(.*)'", curl, re.DOTALL)[1].replace("'\"'\"'", "'"))
    said = httpx.post(f"{tab.server.url}/v1/decisions", json=body).json()
    assert said["answers"][0]["choice"] == answer
