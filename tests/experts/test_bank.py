"""A bank acts as a stack of the experts that are in it, whoever has come and gone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experts.bank import Bank, Banks
from experts.errors import MixError
from experts.mix import RowMix, build_mix
from experts.stacks import stack_experts
from experts.weights import ExpertWeights

SITES = {"one": (5, 4), "two": (4, 3)}


def expert(id: str, rank: int, sites: tuple[str, ...], vectors: bool, group: str = "lora"):
    rng = torch.Generator().manual_seed(sum(map(ord, id)))

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    tensors = {s: {"A": normal(rank, SITES[s][0]), "B": normal(rank, SITES[s][1])} for s in sites}
    gates = {"gate": {s: normal(SITES[s][0]) for s in sites}} if vectors else {}
    return ExpertWeights(id, "lora", (group,), tensors, gates)


EXPERTS = st.builds(
    expert,
    st.text("abcdefg", min_size=3, max_size=5),
    st.integers(1, 4),
    st.sampled_from([("one",), ("two",), ("one", "two")]),
    st.booleans(),
)


def acts_alike(bank: Bank, experts: list[ExpertWeights]) -> None:
    """Every expert alone, and all together, give at each site what a fresh stack gives."""
    fresh = stack_experts(experts)
    rows = [RowMix.of({e.id: 1.0}) for e in experts]
    rows.append(RowMix.of({e.id: 1 / len(experts) for e in experts}))
    for site, (width, out) in SITES.items():
        x_ND, y_NO = torch.randn(len(rows), width).double(), torch.zeros(len(rows), out).double()
        found = build_mix(rows, [bank.stack]).apply(site, x_ND, y_NO.clone())
        expected = build_mix(rows, [fresh]).apply(site, x_ND, y_NO.clone())
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@given(
    experts=st.lists(EXPERTS, min_size=1, max_size=9, unique_by=lambda e: e.id),
    leaving=st.lists(st.integers(0, 99), max_size=6),
)
def test_a_bank_is_a_stack_of_who_is_there(experts, leaving):
    bank, there = Bank("lora"), []
    for one in experts:
        bank.join(one)
        there.append(one)
    acts_alike(bank, there)
    for at in leaving:
        if len(there) > 1:
            gone = there.pop(at % len(there))
            bank.leave(gone.id)
            acts_alike(bank, there)
            if at % 2:
                bank.join(gone)
                there.append(gone)
    acts_alike(bank, there)
    for name in ("gate",):
        expected = {e.id for e in there if e.vectors}
        assert bank.stack.owners.get(name, frozenset()) == expected
        for e in there:
            for site, vector in e.vectors.get(name, {}).items():
                assert bank.stack.vectors[name][site][bank.stack.index[e.id]].equal(vector)


def test_an_expert_is_there_as_long_as_a_row_uses_it():
    banks, one, other = Banks(), expert("one", 2, ("one",), False), expert("two", 3, ("two",), True)
    apart = expert("apart", 2, ("one",), False, group="another")
    banks.join([one, other])
    banks.join([one, apart])
    assert len(banks.stacks()) == 2
    banks.leave([one.id, other.id])
    assert sorted(banks.ids) == ["apart", "one"]
    banks.leave([one.id, apart.id])
    assert (banks.ids, banks.stacks(), banks.nbytes) == ([], [], 0)


def test_a_namesake_may_join_once_nobody_uses_the_former():
    banks, former = Banks(), expert("one", 2, ("one",), False)
    namesake, other = expert("one", 2, ("one",), False), expert("two", 2, ("one",), False)
    banks.join([former])
    banks.join([former])
    assert banks.may_join([former, other])
    assert not banks.may_join([other, namesake])
    banks.leave(["one"])
    assert not banks.may_join([namesake])
    banks.leave(["one"])
    assert banks.may_join([namesake])


def test_tensors_of_another_form_are_refused():
    bank = Bank("lora")
    bank.join(expert("one", 2, ("one",), False))
    with pytest.raises(MixError, match="one merge group"):
        bank.join(ExpertWeights("odd", "lora", ("lora",), {"one": {"A": torch.zeros(2).double()}}))
