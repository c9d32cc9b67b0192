"""Experts as rows, and what they are found by: with those of a real server."""

from __future__ import annotations

import pytest

from server.console.listing import ago, facts_of, licence_of, row_of, words_of

pytestmark = pytest.mark.anyio


async def test_an_expert_is_a_row(client, decision):
    await client.post("/v1/decisions", json={**decision, "model": "mood"})
    expert = (await client.get("/v1/experts/mood")).json()
    row = row_of(expert)
    assert (row["id"], row["kind"], row["state"], row["times"]) == ("mood", "lora", "routed", 1)
    assert (row["tier"], row["last"]) == ("device", expert["use"]["last"])
    assert row["bytes"] == pytest.approx(expert["bytes"] / 2**20, abs=0.01)
    assert "mood" in words_of(expert)
    assert "lora" in words_of(expert)


async def test_what_is_not_known_of_an_expert_is_not_said(client, decision):
    expert = (await client.get("/v1/experts/mood")).json()
    told = dict(facts_of(expert))
    assert (told["name"], told["used"]) == ("mood", "not since the start")
    assert "" not in told.values()
    assert "used" not in dict(facts_of({**expert, "use": None}))
    await client.post("/v1/decisions", json={**decision, "model": "mood"})
    told = dict(facts_of((await client.get("/v1/experts/mood")).json()))
    assert told["used"] == "1 times, last now"


async def test_who_may_not_see_its_use_gets_a_row_all_the_same(client):
    expert = {**(await client.get("/v1/experts/mood")).json(), "use": None, "bytes": None}
    row = row_of(expert)
    assert row["times"] is row["tier"] is row["bytes"] is row["last"] is None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "now"), (7, "7 s ago"), (61, "1 min ago"), (7300, "2 h ago"), (200_000, "2 d ago"),
     (-3, "now")],
)  # fmt: skip
def test_how_long_ago(seconds, said):
    assert ago(1000.0, 1000.0 + seconds) == said
    assert ago(None) == ""


def test_a_licence_is_told_where_there_is_one():
    assert licence_of({"licence": "MIT"}) == licence_of({"license": "MIT"}) == "MIT"
    assert licence_of({}) == ""
