"""What needs no cluster: options, how many replicas, metrics of several as one text."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy.ray.metrics import merged
from deploy.ray.options import plain, read_options
from deploy.ray.scaling import WAITING, by_queue
from server.observability.metrics import Metrics
from server.settings import Settings, SettingsError

OPEN = {"allow_anonymous": "true"}


def test_what_is_not_of_the_set_is_a_setting_and_travels_as_plain_values() -> None:
    options, settings = read_options(
        {**OPEN, "replicas": "3", "library": "somewhere", "cpus": "2.5", "openai_api_key": "secret"}
    )
    assert (options.replicas, settings.threads) == (3, 2)
    assert settings.library == Path("somewhere").absolute()
    values = plain(settings)
    assert values["openai_api_key"] == "secret"
    assert Settings(**values) == settings  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "say who may ask"),
        ({**OPEN, "port": "80"}, "http_options.port"),
        ({**OPEN, "metrics_port": "9090"}, "the ingress serves /metrics"),
        ({**OPEN, "replica": "3"}, "no such setting"),
        ({**OPEN, "replicas": "0"}, "replicas = '0'"),
        ({**OPEN, "replicas": "4", "max_replicas": "2"}, "expected replicas or more"),
        ({**OPEN, "by_expert": "true", "max_replicas": "4"}, "leave max_replicas out"),
    ],
)
def test_what_does_not_fit_is_said(given: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read_options(given)


@pytest.mark.parametrize(
    ("requests", "waiting", "wanted"),
    [(0, [], 0), (128, [0, 0], 2), (10, [600, 40], 10), (96, [32], 1.5)],
)
def test_replicas_follow_requests_or_samples_whichever_are_more(
    requests: float, waiting: list[float], wanted: float
) -> None:
    context = SimpleNamespace(
        total_num_requests=requests,
        aggregated_metrics={WAITING: dict(enumerate(waiting))} if waiting else None,
        config=SimpleNamespace(get_target_ongoing_requests=lambda: 64.0),
    )
    assert by_queue(context) == (wanted, {})  # type: ignore[arg-type]


def test_metrics_of_several_replicas_lose_nothing() -> None:
    texts = {}
    for name, count in (("a", 2), ("b", 5)):
        metrics = Metrics()
        for _ in range(count):
            metrics.request("/v1/decisions", 200, 0.01, None)
        texts[name] = metrics.render().decode()
    families = list(text_string_to_metric_families(merged(texts).decode()))
    assert len({f.name for f in families}) == len(families)
    together = {(s.name, tuple(sorted(s.labels.items()))): s.value
                for f in families for s in f.samples}  # fmt: skip
    for replica, text in texts.items():
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = {**sample.labels, "replica": replica}
                assert together[sample.name, tuple(sorted(labels.items()))] == sample.value
    counted = {s.labels["replica"]: s.value for f in families for s in f.samples
               if s.name == "sailplane_requests_total"}  # fmt: skip
    assert counted == {"a": 2, "b": 5}
