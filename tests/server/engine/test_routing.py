"""Which features a request router is given, and how long a shortlist it gets."""

from __future__ import annotations

import pytest

from routers.catalogue import Catalogue
from routers.policy import Wishes
from routers.shortlist import Shortlist
from routers.types import Features
from server.engine.messages import Choice, Question, RoutingOptions, Sample
from server.engine.run import Engine

ASKED = Question("choice", "Tell the mood of the writer.", (Choice("happy"), Choice("sad")))


@pytest.fixture
def asked(rich: Engine, monkeypatch: pytest.MonkeyPatch):
    """Ask by a router; returns the features and the limit that the shortlist was given."""
    given: list[tuple[Features, int]] = []

    def of(self: Shortlist, query: Features, wishes: Wishes, limit: int) -> Catalogue:
        given.append((query, limit))
        return self.catalogue

    monkeypatch.setattr(Shortlist, "of", of)

    def ask(router: str, **options: object) -> tuple[Features, int]:
        wanted = RoutingOptions(router=router, **options)
        rich.run([Sample("What a lovely day!", ASKED, options=wanted)])
        return given.pop()

    return ask


@pytest.mark.parametrize(
    ("router", "parts"),
    [
        ("default", {"input_D", "input_F", "instruction_D", "choice_CD"}),
        ("dam", {"input_D"}),  # who compares centroids is to be found by them
        ("retrieval", {"input_D"}),
        ("glider", {"sentence_D"}),
    ],
)
def test_a_router_is_given_what_it_needs(asked, router, parts):
    query, _ = asked(router)
    there = {name for name in Features.__dataclass_fields__
             if name != "_white" and getattr(query, name) is not None}  # fmt: skip
    assert there == parts


@pytest.mark.parametrize(
    ("router", "options", "limit"),
    [("default", {}, 8), ("default", {"top_k": 3}, 3), ("dam", {}, 2), ("glider", {}, 64)],
)
def test_a_shortlist_is_told_how_many_may_be_used(asked, router, options, limit):
    assert asked(router, **options)[1] == limit
