"""Real servers, real Prometheus, a short real load: every query of ours parses and finds data."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.deploy.material import (
    DEPLOY,
    RULES,
    Asked,
    alerts,
    names_in,
    panel_queries,
    recorded,
)
from tests.deploy.processes import prometheus, require_tool, sailplane, wait_for
from tests.deploy.traffic import LIBRARY, ask_everything, both, demo_library, write_everything

pytestmark = pytest.mark.slow
SECONDS = 20.0
WINDOW = "2m"
"""What Grafana's `$__rate_interval` stands for here: it reaches over all of the load."""
TIMES = (
    "request", "queue_wait", "batch", "stage", "expert_load", "time_to_first_token", "inter_token",
    "generation_step",
)  # fmt: skip
IDLE = {("stage", "writer", "forward")}
"""What has nothing to do: a server that writes makes its passes in steps, not in this stage."""


@dataclass(frozen=True)
class Live:
    """Prometheus, after it has seen the load."""

    client: httpx.Client
    answered: tuple[int, int]

    def query(self, expr: str) -> list[dict[str, Any]]:
        for variable, value in (("$__rate_interval", WINDOW), ("$job", ".*"), ("$instance", ".*")):
            expr = expr.replace(variable, value)
        answer = self.client.get("/api/v1/query", params={"query": expr})
        body = answer.json()
        assert body["status"] == "success", f"{expr}: {body.get('error')}"
        return body["data"]["result"]

    def numbers(self, expr: str) -> list[float]:
        found = (float(series["value"][1]) for series in self.query(expr))
        return [number for number in found if math.isfinite(number)]


def configuration(folder: Path, targets: dict[str, str]) -> Path:
    """Compose's configuration, with the real rules, that looks at these targets each second."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(path) for path in RULES]
    (job,) = config["scrape_configs"]
    job["static_configs"] = [
        {"targets": [address], "labels": {"part": part}} for part, address in targets.items()
    ]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config), "utf-8")
    return path


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    require_tool("prometheus")
    folder = tmp_path_factory.mktemp("live")
    library, adapters = demo_library(folder), folder / "adapters"
    adapters.mkdir()
    with ExitStack() as stack:
        encoder = stack.enter_context(sailplane(folder, [
            "--library", str(library), "--adapter-root", str(adapters),
            "--routing-log", str(folder / "routing.jsonl"),
        ]))  # fmt: skip
        writer = stack.enter_context(sailplane(folder, [
            "--library", str(LIBRARY / "writer"), "--embedder", "demo",
            "--backbone", str(LIBRARY / "writer" / "byte-llama-3m"),
        ]))  # fmt: skip
        config = configuration(folder, {"encoder": encoder, "writer": writer})
        address = stack.enter_context(prometheus(config, folder))
        client = stack.enter_context(httpx.Client(base_url=f"http://{address}"))
        found = Live(client, (0, 0))
        wait_for(lambda: found.numbers("sum(up)") == [2], 30, "the targets are not up")
        answered = both([
            (ask_everything, encoder, library, adapters, SECONDS),
            (write_everything, writer, SECONDS),
        ])  # fmt: skip
        time.sleep(3)  # two scrapes and an evaluation
        yield Live(client, tuple(answered))


def test_the_load_was_one(live: Live):
    print(f"answered: {live.answered}")
    assert min(live.answered) > 100
    (total,) = live.numbers("sum(sailplane_requests_total)")
    assert total > sum(live.answered)


@pytest.mark.parametrize("asked", panel_queries(), ids=lambda asked: asked.place)
def test_a_panels_query_finds_numbers(live: Live, asked: Asked):
    assert live.numbers(asked.expr), asked.expr


@pytest.mark.parametrize("rule", recorded(), ids=lambda rule: rule["record"])
def test_a_recording_rule_records(live: Live, rule: dict[str, Any]):
    assert live.numbers(rule["record"]), rule["expr"]
    assert live.numbers(rule["expr"])


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_reads_metrics_that_are_there(live: Live, rule: dict[str, Any]):
    live.query(rule["expr"])  # it parses; of a server that is well it may find nothing
    for name in names_in([rule["expr"]]):
        assert live.numbers(name), name


def test_every_rule_is_evaluated_without_error(live: Live):
    groups = live.client.get("/api/v1/rules").json()["data"]["groups"]
    told = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert set(told) == {r["alert"] for r in alerts()} | {r["record"] for r in recorded()}
    assert {name: rule["lastError"] for name, rule in told.items() if rule.get("lastError")} == {}
    bad = [alert["annotations"] for alert in told["SailplaneBadExperts"]["alerts"]]
    assert [one["summary"].split(" of ")[0] for one in bad] == ["1 experts"]  # the load damaged it


def test_what_the_load_did_is_what_is_told(live: Live):
    for expr, value in (
        ('sailplane_fits_total{state="done", part="encoder"}', 1),
        ('sailplane_errors_total{code="bad_expert"}', 1),
        ('sailplane_expert_cache_failures_total{tier="device", part="encoder"}', 1),
        ('sailplane_library_experts{state="bad", part="encoder"}', 1),
        ('sailplane_texts_total{finish="error"}', 0),
        ("sum(sailplane_routing_log_lost_total)", 0),
    ):
        assert live.numbers(expr) == [value], expr


@pytest.mark.parametrize("time", TIMES)
def test_a_histogram_suits_what_it_measures(live: Live, time: str):
    """Its quantiles are numbers between two edges, not the first edge and not the last."""
    spread: dict[tuple[str, str], dict[float, float]] = defaultdict(dict)
    labels = "stage, tier, part, le"
    for series in live.query(f"sum by ({labels}) (sailplane_{time}_seconds_bucket)"):
        label = series["metric"]
        which = (label["part"], label.get("stage") or label.get("tier") or "")
        spread[which][float(label["le"])] = float(series["value"][1])
    seen = 0
    for (part, what), buckets in spread.items():
        edges = sorted(buckets)
        total = buckets[edges[-1]]
        if not total:
            continue
        first, above = buckets[edges[0]] / total, 1 - buckets[edges[-2]] / total
        median = next(edge for edge in edges if buckets[edge] >= total / 2)
        print(f"{time} {part} {what}: {total:g}, p50 <= {median}, in the first {first:.0%}")
        assert above < 0.01
        assert (time, part, what) in IDLE or first < 0.5
        seen += 1
    assert seen
