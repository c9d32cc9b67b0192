"""A form's content as a request that the server takes, and as a link that brings it back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.console.wish import SORTS, Wish

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
weights = st.floats(0, 1000).map(lambda w: float(f"{w:g}"))
wishes = st.builds(
    Wish,
    sort=st.sampled_from(list(SORTS)), text=text, instruction=text,
    options=st.lists(text, max_size=3).map(tuple), model=text,
    router=text, mode=st.sampled_from(["", "merge", "token"]), top_k=st.integers(0, 99),
    max_tokens=st.integers(1, 999), experts=st.dictionaries(text.filter(bool), weights, max_size=3),
    truncate=st.booleans(),
)  # fmt: skip


@given(wishes)
def test_a_link_brings_it_back(wish):
    assert Wish.of_link("#" + wish.to_link()) == wish


@given(text)
def test_any_link_is_some_wish(link):
    assert isinstance(Wish.of_link(link), Wish)


def test_what_is_as_usual_is_not_in_a_link():
    assert Wish().to_link() == ""
    assert Wish(text="a b").to_link() == "text=a+b"


@pytest.mark.parametrize(
    "link", ["top_k=-1", "top_k=many", "sort=poem", "expert=x*mood", "expert=1", "expert=-2*mood",
             "expert=nan*mood", "expert=inf*mood", "truncate=1", "unknown=1"],
)  # fmt: skip
def test_what_makes_no_sense_is_passed_over(link):
    assert Wish.of_link(link) == Wish()


ASKED = [
    Wish(text="A.", instruction="Say what the weather is like.", options=("sunny", "rainy")),
    Wish(text="A.", options=("sunny", "rainy"), router="glider", top_k=1, mode="merge"),
    Wish("score", "A.", "How warm is it?", ("cold", "warm")),
    Wish("predicate", "A.", "It is sunny."),
    Wish(text="A.", model="mood"),
    Wish(text="A.", options=("a", "b"), model="tiny-random"),
    Wish(text="A.", options=("a", "b"), experts={"mood": 0.5, "weather": 0.25}),
    Wish(text="A.", options=("a", "b"), experts={"mood": 1, "weather": 1}, mode="token", top_k=1),
    Wish(text="A.", options=("a", "b"), model="mood", router="glider", mode="token", top_k=3),
    Wish(text="A long way. " * 200, options=("a", "b"), truncate=True),
    Wish(text="A long way. " * 200, options=("a", "b"), model="mood", truncate=True),
]


@pytest.mark.anyio
@pytest.mark.parametrize("wish", ASKED)
async def test_the_server_takes_what_is_asked(client, wish):
    response = await client.post(wish.path, json=wish.body())
    assert response.status_code == 200, response.text
    (trace,) = response.json()["routing"]["questions"]
    assert trace["spelled"]
    assert trace["stages"][0]["stage"] == "queue"


WAYS = {
    "the server's own router": Wish(),
    "router glider, mode token, experts at most 3": Wish(router="glider", mode="token", top_k=3),
    "0.5 mood + 2 weather": Wish(experts={"mood": 0.5, "weather": 2.0}, top_k=3),
    "0.5 mood + 2 weather, mode token": Wish(experts={"mood": 0.5, "weather": 2.0}, mode="token"),
    "mood": Wish(model="mood", router="glider"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_way_is_said_in_words_and_without_what_has_no_effect(way):
    assert WAYS[way].way == way
