"""Comparing in a browser: settings side by side, and differences marked."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from tests.server.console.pages import TOKENS, asked, marked, press


@pytest.mark.slow
def test_settings_are_compared_and_a_difference_is_marked(tab, picture):
    question = "text=Wir+fahren+ans+Meer.&instruction=Which+language+is+it%3F"
    wishes = [f"{question}&option=German&option=Dutch", "model=tweet_offensive"]
    page = tab.open("compare&" + urlencode([("wish", wish) for wish in wishes]))
    page.get_by_role("button", name="Add a setting").click()
    page.get_by_role("heading", name="Setting C").wait_for()
    page.get_by_role("combobox", name="Model").nth(2).fill("no expert")
    page.get_by_role("option", name="no expert").click()
    press(page, "Compare")
    marked(page, "answer-2").wait_for()
    for i in range(3):
        marked(page, f"answer-{i}").get_by_role("heading", name="Who answers").wait_for()
    first = marked(page, "answer-0")
    assert marked(first, "answer").inner_text() == "German"
    assert first.locator(".candidate.chosen .expert-name").first.inner_text() == "language_id"
    forced = marked(page, "answer-1")
    assert forced.locator(".candidate.chosen .expert-name").all_inner_texts() == ["tweet_offensive"]
    differs = marked(forced, "answer").inner_text() != "German"
    told = forced.locator(".at-differs").all_inner_texts()
    assert ("Another answer than the first setting's." in told) == differs
    assert "Other experts than the first setting's." in told
    picture(page, "console-compare")


@pytest.mark.slow
def test_a_question_is_taken_to_the_other_view_and_back_leads_back(tab):
    page = tab.open(TOKENS)
    marked(page, "answer").wait_for()
    press(page, "Compare this")
    marked(page, "answer-1").get_by_role("heading", name="Who answers").wait_for()
    assert asked(page).startswith("Book a table")
    page.get_by_role("tab", name="Live").click()
    page.get_by_text("Recent requests").wait_for()
    page.go_back()
    marked(page, "answer-1").wait_for()
    page.go_back()
    press(page, "Ask")
    assert asked(page).startswith("Book a table")
