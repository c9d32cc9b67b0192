"""`sailplane serve` sends spans to the collector that OpenTelemetry's own variable names."""

from __future__ import annotations

import pytest
import yaml

from tests.deploy.material import DEPLOY
from tests.deploy.processes import sailplane
from tests.deploy.traffic import LIBRARY, traffic
from tests.server.observability.collector import collecting, values


@pytest.mark.slow
def test_a_server_tells_the_collector_of_every_request(tmp_path):
    options = ["--library", str(LIBRARY / "minilm")]
    with collecting() as collector:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.address}
        with sailplane(tmp_path, options, **environment) as address:
            traffic(address).decisions(20, 4)
        roots = collector.roots()
    assert [values(root)["http.route"] for root in roots] == ["/v1/decisions"] * 20
    for root in roots:
        names = [span.name for span in collector.children(root)]
        assert names[0] == "queue"
        assert names[-1] == "forward"
        told = values(root)
        assert 1 <= len(told["sailplane.routing.experts"]) <= 8
        assert 0 <= told["sailplane.routing.confidence"] <= 1


def test_composes_collector_listens_where_spans_are_sent():
    config = yaml.safe_load((DEPLOY / "otel" / "collector.yaml").read_text("utf-8"))
    assert config["receivers"]["otlp"]["protocols"]["http"]["endpoint"].endswith(":4318")
    traces = config["service"]["pipelines"]["traces"]
    for sort in ("receivers", "processors", "exporters"):
        assert set(traces[sort]) <= set(config[sort])
