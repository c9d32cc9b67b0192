"""The feature store computes each text once, keeps no text, and forgets what is oldest."""

import torch

from server.engine.features import FeatureStore


class Counting:
    """Vectors made from lengths, and what was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, texts):
        self.asked.append(list(texts))
        return torch.tensor([[float(len(t)), 1.0] for t in texts])


def test_a_text_is_computed_once_and_equal_texts_together():
    compute = Counting()
    store = FeatureStore(compute)
    store.warm(["a", "bb", "a"])
    store.warm(["bb", "ccc"])
    assert store.get("a").tolist() == [1, 1]
    assert compute.asked == [["a", "bb"], ["ccc"]]
    assert (store.lookups, store.hits) == (4, 1)


def test_nothing_to_compute_runs_nothing():
    compute = Counting()
    store = FeatureStore(compute)
    store.warm([])
    store.warm(["a"])
    store.warm(["a"])
    assert compute.asked == [["a"]]


def test_a_stack_is_in_the_order_asked_for():
    assert FeatureStore(Counting()).stack(["ccc", "a", "ccc"])[:, 0].tolist() == [3, 1, 3]


def test_the_least_used_is_forgotten():
    compute = Counting()
    store = FeatureStore(compute, entries=2)
    store.warm(["a", "bb"])
    store.get("a")
    store.warm(["ccc"])
    store.get("a")
    assert compute.asked == [["a", "bb"], ["ccc"]]
    store.get("bb")
    assert compute.asked[-1] == ["bb"]


def test_one_call_may_need_more_than_the_store_keeps():
    compute = Counting()
    store = FeatureStore(compute, entries=1)
    store.warm(["a", "bb", "ccc"])
    assert store.stack(["a", "bb", "ccc"])[:, 0].tolist() == [1, 2, 3]
    assert len(compute.asked) == 1


def test_no_text_is_kept_and_odd_text_is_taken():
    store = FeatureStore(Counting())
    store.warm(["a secret", "", "half a pair \ud800"])
    assert "a secret" not in repr(vars(store))
    assert store.get("half a pair \ud800").tolist() == [13, 1]


def test_a_kept_vector_holds_no_batch_alive():
    store = FeatureStore(Counting())
    store.warm([str(i) for i in range(100)])
    assert store.get("7").untyped_storage().nbytes() == 8
