"""Which examples a step takes: of one corpus, and of several together."""

from collections import Counter

from experts.training.recipe import Recipe
from experts.training.schedule import Batch, batches, remembering, schedule


def test_every_epoch_takes_each_example_once():
    recipe = Recipe(batch_size=4, epochs=3, min_steps=1)
    made = batches([5] * 10, recipe)
    assert len(made) == 9
    for start in (0, 3, 6):
        assert sorted(i for batch in made[start : start + 3] for i in batch) == list(range(10))
    assert made == batches([5] * 10, recipe)


def test_small_tasks_repeat_their_epochs():
    made = batches([5] * 10, Recipe(batch_size=4, epochs=3, min_steps=20))
    assert len(made) == 21  # whole epochs of three


def test_batches_hold_inputs_of_like_length():
    lengths = list(range(64))
    made = batches(lengths, Recipe(batch_size=8, epochs=1, min_steps=1))
    assert all(max(batch) - min(batch) == 7 for batch in made)


def test_one_corpus_has_its_own_batches_in_their_order():
    recipe = Recipe(batch_size=4, epochs=3, min_steps=1)
    lengths = [5, 9, 2, 7, 7, 1, 3]
    assert [batch.rows for batch in schedule([lengths], recipe)] == batches(lengths, recipe)
    assert {batch.corpus for batch in schedule([lengths], recipe)} == {0}


def test_corpora_together_take_the_steps_that_each_takes_alone():
    """And in the order it has alone; whose turn it is, is drawn."""
    recipe = Recipe(batch_size=4, epochs=3, min_steps=10)
    lengths = [[5] * 50, list(range(30)), [3]]
    made = schedule(lengths, recipe)
    for corpus, own in enumerate(lengths):
        mine = [batch.rows for batch in made if batch.corpus == corpus]
        assert mine == batches(own, recipe)
    assert made == schedule(lengths, recipe)
    assert made != schedule(lengths, recipe.model_copy(update={"seed": 1}))


def test_corpora_take_turns_from_the_first_step_to_the_last():
    made = schedule([[5] * 400, [5] * 400], Recipe(batch_size=4, epochs=1, min_steps=1))
    for part in (made[:50], made[-50:]):
        assert all(10 < count < 40 for count in Counter(b.corpus for b in part).values())


def test_a_step_remembers_as_much_as_it_learns():
    recipe = Recipe(batch_size=4, epochs=2, min_steps=1)
    made = schedule([[5] * 10], recipe)
    steps = remembering(made, [30, 50], 1, recipe)
    assert [step[0] for step in steps] == made
    for learnt, *recalled in steps:
        assert sum(len(batch.rows) for batch in recalled) == len(learnt.rows)
        for batch in recalled:
            assert batch.rows == sorted(set(batch.rows)), "no example twice in a step"
            assert batch.rows[-1] < {1: 30, 2: 50}[batch.corpus]
    assert steps == remembering(made, [30, 50], 1, recipe)


def test_a_small_memory_is_remembered_whole_and_an_empty_one_not_at_all():
    recipe = Recipe(batch_size=8, epochs=1, min_steps=1)
    made = schedule([[5] * 16], recipe)
    assert remembering(made, [2, 1], 1, recipe) == [
        (batch, Batch(1, [0, 1]), Batch(2, [0])) for batch in made
    ]
    assert remembering(made, [], 1, recipe) == [(batch,) for batch in made]


def test_every_example_of_memory_has_the_same_chance():
    recipe = Recipe(batch_size=8, epochs=50, min_steps=1)
    steps = remembering(schedule([[5] * 32], recipe), [10, 30], 1, recipe)
    times = Counter((b.corpus, row) for _, *recalled in steps for b in recalled for row in b.rows)
    assert len(times) == 40
    assert max(times.values()) < 2 * min(times.values())
