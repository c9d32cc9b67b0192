"""The statement map: fitted on some experts' sentences, it places sentences nobody fitted on."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from experts.backbones.tiny import tiny_encoder
from experts.manifest import Label, TaskCard, Wording
from experts.statements import StatementMap, read_statements, truth_table
from routers.fitting import statements
from routers.fitting.statements import fit_statement_map

WIDTH = 24
NOUNS = ("loud", "quiet", "red", "green", "sweet", "sour")


def label_of(noun):
    return Label(
        value=noun,
        wordings=(Wording(value=f"rather {noun}"), Wording(value=f"truly {noun}")),
        statements=(f"The thing is {noun}.", f"One calls it {noun}."),
        negations=(f"The thing is not {noun}.", f"One does not call it {noun}."),
        statement_unseen=f"Here is something {noun}.",
        negation_unseen=f"Here is something not {noun}.",
    )


def cards():
    return [
        TaskCard(id=f"t{i}", title="T", labels=tuple(map(label_of, NOUNS[i : i + 2])))
        for i in (0, 2, 4)
    ]


def read(texts):
    """Nouns drown the direction in which a denial differs, more so in the embedding."""
    return torch.cat([vectors(texts, 0.1), 0.9 + 0.1 * vectors(texts, 0.4)], dim=1)


def vectors(texts, denial):
    """Directions of nouns, and some of the one that denies."""
    generator = torch.Generator().manual_seed(0)
    word_ND = F.normalize(torch.randn(len(NOUNS) + 1, WIDTH, generator=generator), dim=-1)
    rows = []
    for text in texts:
        noise_D = torch.randn(WIDTH, generator=torch.Generator().manual_seed(len(text)))
        denies = " not " in text or "n't" in text or "false" in text
        noun = next(i for i, n in enumerate(NOUNS) if n in text.lower())
        rows.append(word_ND[noun] + (denial if denies else -denial) * word_ND[-1] + 0.1 * noise_D)
    return F.normalize(torch.stack(rows), dim=-1)


def misplaced(placing):
    """Mean error of all cards' unseen sentences."""
    errors = []
    for card in cards():
        known = [s for lb in card.labels for s in (*lb.statements, *lb.negations)]
        said = [s for lb in card.labels for s in (lb.statement_unseen, lb.negation_unseen)]
        holds_QL = torch.tensor([[1, 0], [0, 1], [0, 1], [1, 0]]).float()
        placed_QL = placing.place(read(said), read(known), truth_table(card.labels))
        errors.append(float((placed_QL - holds_QL).abs().mean()))
    return sum(errors) / len(errors)


def test_a_fitted_map_places_unseen_sentences_better():
    fitted = fit_statement_map(cards(), read)
    assert fitted is not None
    assert misplaced(fitted) < misplaced(StatementMap.identity(WIDTH))
    assert misplaced(fitted) < 0.1


def test_unseen_sentences_stay_out():
    asked: list[str] = []

    def listening(texts):
        asked.extend(texts)
        return read(texts)

    fit_statement_map(cards(), listening)
    assert asked
    assert not any(text.startswith("Here is something") for text in asked)


def test_the_map_of_random_embeddings_is_finite(monkeypatch):
    monkeypatch.setattr(statements, "STEPS", 20)
    backbone = tiny_encoder()
    fitted = fit_statement_map(cards(), partial(read_statements, backbone))
    assert fitted.map_FD.shape == (64, 32)
    assert fitted.map_FD.isfinite().all()
    assert 0 < fitted.scale < float("inf")
    assert not fitted.map_FD.requires_grad


def test_the_seed_decides_the_map(monkeypatch):
    monkeypatch.setattr(statements, "STEPS", 5)
    first, second, other = (fit_statement_map(cards(), read, seed) for seed in (1, 1, 2))
    assert torch.equal(first.map_FD, second.map_FD)
    assert not torch.equal(first.map_FD, other.map_FD)


@pytest.mark.parametrize("without", [[], [TaskCard(id="t", title="T")]])
def test_there_is_no_map_without_statements(without):
    assert fit_statement_map(without, read) is None


def test_experts_without_statements_change_nothing(monkeypatch):
    monkeypatch.setattr(statements, "STEPS", 5)
    bare = TaskCard(id="bare", title="T", labels=(Label(value="loud"),))
    alone, beside = fit_statement_map(cards(), read), fit_statement_map([bare, *cards()], read)
    assert torch.equal(alone.map_FD, beside.map_FD)


def test_a_card_with_one_stated_label_changes_nothing(monkeypatch):
    """It has nothing to tell its sentences from, and used to make the whole map NaN."""
    monkeypatch.setattr(statements, "STEPS", 5)
    lone = TaskCard(id="lone", title="T", labels=(label_of("loud"), Label(value="quiet")))
    assert fit_statement_map([lone], read) is None
    alone, beside = fit_statement_map(cards(), read), fit_statement_map([lone, *cards()], read)
    assert beside.map_FD.isfinite().all()
    assert torch.equal(alone.map_FD, beside.map_FD)


def test_a_map_that_is_not_finite_is_refused(monkeypatch):
    monkeypatch.setattr(statements, "STEPS", 2)
    with pytest.raises(ValueError, match="NaN or infinity"):
        fit_statement_map(cards(), lambda texts: read(texts) * torch.nan)
