"""The default router answers about as well as if every task's own expert were named."""

import pytest

from experts.training.data import read_tasks
from server.evaluate import ORACLE, measure

pytestmark = pytest.mark.slow

PER_TASK = 40


@pytest.mark.parametrize(("sees", "share"), [("choices", 0.98), ("reworded", 0.95)])
def test_default_comes_near_the_oracle(engine, data, sees, share):
    tasks = read_tasks(data)
    cards = {id: entry.manifest for id, entry in engine.library.entries.items()}
    means = measure(engine, tasks, ["default", ORACLE], sees, cards, PER_TASK)["means"]
    assert means["default"] >= share * means[ORACLE], means
