"""The dashboards: made from their boards, whole, readable, and of metrics that there are."""

from __future__ import annotations

import json
import re
from itertools import combinations

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.boards import BOARDS
from deploy.grafana.build import document
from server.engine.service import EngineService
from tests.deploy.material import (
    DASHBOARDS,
    DEPLOY,
    OURS,
    alerts,
    dashboard,
    names_in,
    names_of,
    panel_queries,
    panels,
    recorded,
)
from tests.server.api.writing_material import engine_of

each = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda p: p.stem)
PROVISIONING = DEPLOY / "grafana" / "provisioning"


@pytest.fixture(scope="module")
def exposed(tmp_path_factory):
    """Every name that a server which writes can expose; one that decides exposes fewer."""
    service = EngineService(engine_of("causal", tmp_path_factory.mktemp("exposed") / "library"))
    return names_of(service.metrics.registry) | {"up"}


def test_what_is_committed_is_what_the_boards_make():
    made = {f"{board.uid}.json": document(board) for board in BOARDS}
    assert {path.name: path.read_text("utf-8") for path in DASHBOARDS} == made, (
        "run: python -m deploy.grafana.build"
    )


def holds(whole, part):
    """Whether `whole` says all that `part` does; the model adds defaults of its own."""
    if isinstance(part, dict):
        return all(key in whole and holds(whole[key], value) for key, value in part.items())
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(holds, whole, part))
    return whole == part


@each
def test_grafanas_own_model_reads_it_whole(path):
    register_default_plugins()
    read = Dashboard.from_json(dashboard(path))
    written = json.loads(JSONEncoder().encode(read))
    assert holds(written, dashboard(path)), "a field that Grafana does not know"


@each
def test_panels_have_ids_of_their_own_and_do_not_overlap(path):
    board = dashboard(path)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    places = [(panel["title"], panel["gridPos"]) for panel in board["panels"]]
    for _, at in places:
        assert at["x"] + at["w"] <= 24
        assert min(at["w"], at["h"]) > 0
    for (one, a), (other, b) in combinations(places, 2):
        apart = (
            a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        )  # fmt: skip
        assert apart, (one, other)


@each
def test_every_panel_has_a_unit_and_says_what_to_do(path):
    titles = []
    for panel in panels(dashboard(path)):
        titles.append(panel["title"])
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert len(panel["description"].split()) > 8, panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == [*"ABCDEFGH"[: len(letters)]]
        assert all(target["expr"] for target in panel["targets"])
    assert len(titles) == len(set(titles))


@each
def test_the_reader_chooses_source_job_and_instance(path):
    board = dashboard(path)
    assert [v["name"] for v in board["templating"]["list"]] == ["datasource", "job", "instance"]
    assert board["annotations"]["list"] == []
    for panel in panels(board):
        for target in panel["targets"]:
            for selector in re.findall(rf"{OURS}(\{{[^}}]*\}})?", target["expr"]):
                assert 'job=~"$job", instance=~"$instance"' in selector, target["expr"]


def test_no_panel_and_no_rule_names_a_metric_that_no_server_has(exposed):
    rules = {rule["record"] for rule in recorded()}
    asked = names_in(asked.expr for asked in panel_queries())
    asked |= names_in(rule["expr"] for rule in (*recorded(), *alerts()))
    assert len(asked) > 60
    assert sorted(asked - exposed - rules) == []


def test_every_metric_of_ours_is_seen_by_somebody(exposed):
    asked = names_in(asked.expr for asked in panel_queries())
    asked |= names_in(rule["expr"] for rule in (*recorded(), *alerts()))
    seen = {re.sub("_(bucket|sum|count)$", "", name) for name in asked}
    ours = {re.sub("_(bucket|sum|count)$", "", n) for n in exposed if n.startswith("sailplane_")}
    assert sorted(ours - seen) == []


def test_provisioning_points_where_compose_mounts():
    (source,) = yaml.safe_load((PROVISIONING / "datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards/sailplane.yaml").read_text())[
        "providers"
    ]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
