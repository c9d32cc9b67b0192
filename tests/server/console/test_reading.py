"""What a response says of its routing, as rows: with the traces of a real server."""

from __future__ import annotations

import pytest

from server.console.palette import marks
from server.console.reading import (
    candidates,
    differences,
    ended,
    heat_map,
    in_order,
    placed,
    remarks,
    shares,
    spoken,
    trace_of,
    waterfall,
    why_even,
)
from server.console.wish import Wish

pytestmark = pytest.mark.anyio


async def asked(client, wish):
    response = await client.post(wish.path, json=wish.body())
    assert response.status_code == 200, response.text
    return response.json()["routing"]["questions"][0]


WISH = Wish(text="Not a cloud to be seen.", instruction="Say what the weather is like.",
            options=("sunny", "rainy"))  # fmt: skip


async def test_chosen_experts_come_first_and_then_those_that_scored(client):
    trace = await asked(client, WISH)
    rows = candidates(trace)
    assert {r.id for r in rows} == {"mood", "weather"}
    chosen = [r for r in rows if r.chosen]
    assert [r.id for r in chosen] == [e["id"] for e in trace["selection"]["experts"]]
    assert rows[: len(chosen)] == chosen
    assert all(r.score is not None and r.views for r in rows)


async def test_a_named_expert_has_no_score(client):
    (row,) = candidates(await asked(client, Wish(text="A.", model="mood")))
    assert (row.id, row.score, row.weight, row.chosen) == ("mood", None, 1.0, True)
    assert row.named


async def test_a_score_that_is_not_told_does_not_mean_that_the_caller_named_the_expert(client):
    trace = await asked(client, WISH)
    trace["candidates"] = trace["candidates"][:1]
    trace["selection"]["experts"] = [{"id": "other", "weight": 1.0}]
    first = candidates(trace)[0]
    assert (first.id, first.score, first.named) == ("other", None, False)


async def test_stages_lie_one_after_the_other_within_the_whole(client):
    rows = waterfall((await asked(client, WISH))["stages"])
    assert rows[0].name == "queue"
    assert {"embed", "select", "forward"} <= {r.name for r in rows}
    assert all(r.says for r in rows)
    assert [r.begins for r in rows] == sorted(r.begins for r in rows)
    assert max(r.offset + r.share for r in rows) == pytest.approx(1, abs=1e-6)
    assert waterfall([]) == []


async def test_token_by_token_every_site_is_a_row(client, engine):
    wish = Wish(text=WISH.text, experts={"mood": 1, "weather": 1}, mode="token", top_k=1,
                options=("a", "b"))  # fmt: skip
    trace = await asked(client, wish)
    found = heat_map(trace, marks(["weather", "mood"]))
    assert found is not None
    assert not found.even
    assert found.tokens == trace["spelled"]
    assert [e["id"] for e in found.experts] == ["weather", "mood"]
    reach = {s.name for s in engine.backbone.sites.values() if s.reaches_output}
    assert {row.site for row in found.rows} == reach
    for row in found.rows:
        told = next(s for s in trace["tokens"] if s["site"] == row.site)
        assert row.weights_ET == [
            told["weights"].get(id, [0.0] * len(found.tokens)) for id in ("weather", "mood")
        ]
        assert (row.stack, row.part) != ("", "")
        assert row.layer >= 0
    assert found.as_json()["rows"][0]["weights_ET"]


async def test_merged_experts_weigh_the_same_at_every_token(client):
    trace = await asked(
        client, Wish(text="A.", experts={"mood": 3, "weather": 1}, options=("a", "b"))
    )
    found = heat_map(trace, marks(["mood", "weather"]))
    assert found is not None
    assert found.even
    (row,) = found.rows
    assert row.weights_ET == [[0.75] * len(found.tokens), [0.25] * len(found.tokens)]


async def test_the_bare_backbone_has_no_heat_map(client):
    trace = await asked(client, Wish(text="A.", model="tiny-random", options=("a", "b")))
    assert heat_map(trace, {}) is None


async def test_what_a_person_should_know_is_said(client):
    trace = await asked(client, WISH)
    trace |= {
        "fallback": "no_fit", "narrowed": True, "dropped": {"odd": "another merge group"},
        "replaced": ["gone"], "truncated": [{"part": "input", "tokens_sent": 9, "tokens_kept": 5}],
        "writer_note": "The writer is away.", "calibration_note": None,
    }  # fmt: skip
    said = " ".join(remarks(trace))
    for word in ("surely fits", "all experts", "odd was left out: another", "gone could not",
                 "from 9 to 5", "writer is away"):  # fmt: skip
        assert word in said
    assert remarks({**trace, "fallback": None, "narrowed": False, "dropped": {}, "replaced": [],
                    "truncated": [], "writer_note": None}) == []  # fmt: skip


def test_every_fallback_of_the_policy_has_words():
    from server.console.reading import FALLBACKS
    from server.observability.metrics import FALLBACKS as CODES

    assert {"no_fit", "no_expert"} == set(FALLBACKS) <= set(CODES)


@pytest.mark.parametrize(
    ("site", "found"),
    [
        ("encoder.layer.3.attention.self.query", ("encoder", 3, "attention.self.query")),
        ("model.layers.11.mlp.down_proj", ("model", 11, "mlp.down_proj")),
        ("decoder.block.0.layer.1.EncDecAttention.q", ("decoder", 0, "layer.1.EncDecAttention.q")),
        ("transformer.h.2", ("transformer", 2, "transformer.h.2")),
        ("lm_head", ("", -1, "lm_head")),
    ],
)
def test_a_site_has_a_place(site, found):
    assert placed(site) == found


def said(choice="a", share=0.6, **weights):
    experts = [{"id": id, "weight": w} for id, w in weights.items()]
    return {
        "answers": [{"type": "choice", "choice": choice, "probabilities": [
            {"value": "a", "probability": share}, {"value": "b", "probability": 1 - share}]}],
        "routing": {"questions": [{"selection": {"experts": experts}}]},
    }  # fmt: skip


def test_differences_from_the_first_are_named():
    first = said(mood=0.7, weather=0.3)
    assert differences(first, first) == []
    assert differences(said("b", 0.4, mood=0.7, weather=0.3), first) == [
        "Another answer than the first setting's."
    ]
    assert differences(said("a", 0.7, mood=0.7, weather=0.3), first) == [
        "a: +10.0% against the first setting."
    ]
    assert differences(said(weather=0.3, mood=0.7), first) == [
        "Other experts than the first setting's."
    ]
    assert differences(said(), first) == ["Other experts than the first setting's."]
    assert differences(said(mood=0.6, weather=0.4), first) == [
        "Other weights than the first setting's."
    ]


@pytest.mark.parametrize(
    ("answer", "word", "options"),
    [
        ({"type": "predicate", "probability": 0.7}, "true", ["true", "false"]),
        ({"type": "predicate", "probability": 0.2}, "false", ["true", "false"]),
        ({"type": "score", "score": 0.9, "probabilities": [
            {"label": "low", "probability": 0.1}, {"label": "high", "probability": 0.9}]},
         "high (score 0.90)", ["low", "high"]),
        ({"type": "refusal", "reason": "No labels."}, "No labels.", []),
    ],
)  # fmt: skip
def test_every_sort_of_answer_is_a_word_and_its_shares(answer, word, options):
    assert spoken(answer) == word
    assert [option for option, _ in shares(answer)] == options
    assert not options or sum(share for _, share in shares(answer)) == pytest.approx(1)


@pytest.mark.parametrize(
    "routing",
    [{"questions": [{"x": 1}]}, {"prompts": [{"trace": {"x": 1}}]}, {"trace": {"x": 1}}],
)
def test_the_trace_is_found_wherever_a_route_has_it(routing):
    assert trace_of({"routing": routing}) == {"x": 1}
    assert trace_of({}) is None


def test_experts_are_in_the_order_of_what_they_weigh_over_all_tokens():
    chosen = [{"id": "a", "weight": 0.9}, {"id": "b", "weight": 0.1}]
    site = {"experts": ["a", "b"], "weights": {"a": [0.1, 0.2], "b": [0.9, 0.8]}}
    trace = {"selection": {"experts": chosen}, "candidates": [], "tokens": [site]}
    assert in_order(trace) == ["b", "a"]
    assert in_order({**trace, "tokens": None}) == ["a", "b"]


def test_why_all_tokens_are_alike_says_how_they_would_not_be():
    one = {"selection": {"experts": [{"id": "a", "weight": 1.0}]}}
    assert "Only a answers" in why_even(one)
    two = {"selection": {"experts": [{"id": "a"}, {"id": "b"}]}}
    assert "mode token" in why_even(two)


def test_why_a_text_ends():
    assert "stopped" in ended("length")
    assert "complete" in ended("stop")
