"""A query's features."""

from dataclasses import replace

import torch

from routers.metric import Metric
from routers.types import Features


class Counting(Metric):
    """A metric that counts."""

    def whiten(self, feature_BF):
        calls.append(self)
        return super().whiten(feature_BF)


calls: list[Metric] = []
NOTHING = torch.zeros(0, 3)


def test_an_input_is_whitened_once_a_metric():
    calls.clear()
    one, two = (Counting(torch.zeros(3), scale * torch.eye(3), NOTHING) for scale in (2.0, 3.0))
    query = Features(input_F=torch.ones(3))
    for _ in range(2):
        assert query.white(one).tolist() == [2, 2, 2]
        assert query.white(two).tolist() == [3, 3, 3]
    assert calls == [one, two]
    assert replace(query, input_F=torch.zeros(3)).white(one).tolist() == [0, 0, 0]


def test_a_query_without_an_input_has_none():
    assert Features(torch.ones(3)).white(Counting(torch.zeros(3), torch.eye(3), NOTHING)) is None
