"""A large library is cut down to what is worth scoring, and nobody near is lost."""

from dataclasses import replace

import pytest
import torch

from routers import shortlist, sieve
from routers.calibration import Calibration
from routers.catalogue import Catalogue
from routers.index import owned
from routers.policy import Wishes, decide
from routers.presets import PRESETS
from routers.request import REQUEST_ROUTERS
from routers.shortlist import Shortlist
from routers.sieve import Near, Sieve
from routers.types import Features
from tests.routers.conftest import units

ANY = Wishes()


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    """What takes thousands of experts, with a few dozen."""
    monkeypatch.setattr(shortlist, "SMALL", 8)
    monkeypatch.setattr(shortlist, "KEPT", 6)
    monkeypatch.setattr(shortlist, "KEPT_OF_MANY", 10)
    monkeypatch.setattr(shortlist, "NEAREST", 12)
    monkeypatch.setattr(shortlist, "FRESH", 3)


def query_near(catalogue, e, seed=0):
    """A query of all three parts near one expert."""
    own = catalogue.experts[e].artefacts
    near = [
        torch.nn.functional.normalize(rows.float() + 0.1 * units(len(rows), seed), dim=-1)
        for rows in own.rows()
    ]
    return Features(near[2][0], near[0][0], near[1])


def test_a_small_library_is_left_as_it_is(catalogue_of):
    catalogue = catalogue_of(8)
    assert Shortlist(catalogue).of(query_near(catalogue, 3), ANY) is catalogue


@pytest.mark.parametrize("e", range(0, 40, 7))
def test_the_best_of_a_large_library_is_on_the_list_with_its_exact_score(catalogue_of, e):
    catalogue = catalogue_of(40)
    query = query_near(catalogue, e)
    short = Shortlist(catalogue).of(query, ANY)
    assert len(short) == 6
    assert short.whole == 40
    for name in ("centroid", "nearest"):
        router = REQUEST_ROUTERS[name]
        full_E = router.score(query, catalogue, Calibration()).score_E
        short_S = router.score(query, short, Calibration()).score_E
        best = catalogue.ids[int(full_E.argmax())]
        assert short.ids[int(short_S.argmax())] == best
        for id, score in zip(short.ids, short_S, strict=True):
            torch.testing.assert_close(score, full_E[catalogue.position(id)], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("limit", "length"), [(1, 6), (3, 6), (4, 10), (10**9, 10)])
def test_who_may_use_many_gets_a_longer_list(catalogue_of, limit, length):
    catalogue = catalogue_of(40)
    short = Shortlist(catalogue)
    query = query_near(catalogue, 3)
    assert len(short.of(query, ANY, limit)) == length
    denied = Wishes(deny=frozenset(catalogue.ids[30:]))
    assert len(short.of(query, denied, limit)) == length


def test_every_view_is_heard(catalogue_of):
    catalogue = catalogue_of(40)
    parts = [query_near(catalogue, e) for e in (2, 20, 33)]
    mixed = Features(parts[0].input_D, parts[1].instruction_D, parts[2].choice_CD)
    assert {"e02", "e20", "e33"} <= set(Shortlist(catalogue).of(mixed, ANY).ids)
    assert "e20" in Shortlist(catalogue).of(Features(sentence_D=parts[1].instruction_D), ANY).ids


def test_who_may_not_answer_takes_no_place(catalogue_of):
    catalogue = catalogue_of(40)
    query = query_near(catalogue, 5)
    free = Shortlist(catalogue).of(query, ANY)
    denied = Shortlist(catalogue).of(query, Wishes(deny=frozenset(free.ids)))
    assert len(denied) == 6  # it looks further for others
    assert not {*free.ids} & {*denied.ids}
    assert denied.whole == 34


def test_few_that_are_allowed_are_all_scored_however_far(catalogue_of):
    catalogue = catalogue_of(40)
    allowed = frozenset({"e01", "e39", "nobody"})
    short = Shortlist(catalogue).of(query_near(catalogue, 5), Wishes(allow=allowed))
    assert (short.ids, short.whole) == (("e01", "e39"), 2)


def test_many_that_are_allowed_are_sifted_too(catalogue_of):
    catalogue = catalogue_of(40)
    allowed = frozenset(catalogue.ids[10:])
    wishes = Wishes(allow=allowed, deny=frozenset({"e39"}))
    short = Shortlist(catalogue).of(query_near(catalogue, 5), wishes)
    assert len(short) == 6
    assert {*short.ids} <= allowed - {"e39"}
    assert short.whole == 29


def test_who_joins_is_found_without_a_new_sieve_and_who_leaves_is_not(catalogue_of):
    large = catalogue_of(40)
    first = Shortlist(Catalogue(large.experts[:38]))
    second = Shortlist(large, first)
    assert second._sieves[0] is first._sieves[0]
    assert "e39" in second.of(query_near(large, 39), ANY).ids
    gone = Shortlist(Catalogue(large.experts[1:]), second)
    assert gone._sieves[0] is first._sieves[0]
    assert "e00" not in gone.of(query_near(large, 0), ANY).ids


def test_a_replaced_expert_is_found_by_what_it_is_now(catalogue_of):
    catalogue = catalogue_of(40)
    before = Shortlist(catalogue)
    moved = replace(
        catalogue.experts[5], version=9, artefacts=catalogue_of(51).experts[50].artefacts
    )
    experts = [*catalogue.experts[:5], moved, *catalogue.experts[6:]]
    after = Shortlist(Catalogue(experts), before)
    assert after.of(query_near(catalogue_of(51), 50), ANY).get("e05") is moved


def test_when_many_have_joined_the_sieve_is_made_anew(catalogue_of):
    catalogue = catalogue_of(40)
    before = Shortlist(Catalogue(catalogue.experts[:30]))
    (made,) = Shortlist(catalogue, before)._sieves
    assert made.experts == catalogue.experts


def test_quantised_search_finds_nearly_all_that_a_flat_one_finds(monkeypatch):
    rows = [units(4, seed, 64) for seed in range(300)]
    query_QD = torch.nn.functional.normalize(
        torch.cat([r[:1] for r in rows[::3]]) + 0.5 * units(100, 999, 64), dim=-1
    )
    flat = Near(*owned(rows))
    monkeypatch.setattr(sieve, "FLAT", 100)
    quantised = Near(*owned(rows))
    assert type(flat._index) is not type(quantised._index)
    found = [
        next(iter(flat.owners(q[None], 1))) in set(quantised.owners(q[None], 60)) for q in query_QD
    ]
    assert sum(found) / len(found) >= 0.99


def test_a_query_without_a_part_or_an_expert_without_vectors(catalogue_of):
    assert list(Sieve(()).nearest(Features(units(1, 0)[0]), 5)) == []
    assert list(Sieve(catalogue_of(3).experts).nearest(Features(), 5)) == []


def test_the_reason_counts_the_whole_library(catalogue_of):
    catalogue = catalogue_of(40)
    query = query_near(catalogue, 7)
    short = Shortlist(catalogue).of(query, ANY)
    preset = replace(PRESETS["phatgoose"], request="evidence")
    scores = REQUEST_ROUTERS["evidence"].score(query, short, Calibration())
    decision = decide(preset, scores, short, Calibration(), ANY)
    assert decision.narrowed
    assert "Of 40 experts" in decision.selection.reason


def test_a_part_knows_nobody_else(catalogue_of):
    whole = Shortlist(catalogue_of(40))
    ids = [f"e{i:02d}" for i in range(0, 40, 2)]
    query = query_near(whole.catalogue, 5)
    part = whole.within([*ids, "nobody"])
    assert part.catalogue.ids == tuple(ids)
    alone = Shortlist(Catalogue([whole.catalogue.get(i) for i in ids]))
    assert part.of(query, ANY).ids == alone.of(query, ANY).ids
    assert part.of(query, ANY).whole == 20
    few = whole.within(ids[:8])
    assert few.of(query, ANY) is few.catalogue


def test_a_part_too_large_for_a_sieve_of_its_own_passes_that_of_all(monkeypatch, catalogue_of):
    whole = Shortlist(catalogue_of(40))
    monkeypatch.setattr(sieve, "FLAT", 60)
    small, large = (whole.within([f"e{i:02d}" for i in range(n)]) for n in (9, 30))
    assert small._sieves[0] is not whole._sieves[0]
    assert large._sieves[0] is whole._sieves[0]
    for e in (3, 29):
        near = large.of(query_near(whole.catalogue, e), ANY)
        assert f"e{e:02d}" in near.ids
        assert len(near) == 6
    assert {*large.of(query_near(whole.catalogue, 35), ANY).ids} <= {*large.catalogue.ids}


def test_many_that_are_denied_take_no_place(catalogue_of):
    catalogue = catalogue_of(40)
    wishes = Wishes(deny=frozenset(catalogue.ids[:25]))
    short = Shortlist(catalogue).of(query_near(catalogue, 5), wishes)
    assert (len(short), short.whole) == (6, 15)
    assert not {*short.ids} & wishes.deny
