"""Makes the operator's object of the rules: `python -m deploy.prometheus.build`.

The rules are those of `rules/`, word for word. A test compares what is committed with what comes
out of here.
"""

from __future__ import annotations

from pathlib import Path

import yaml

HERE = Path(__file__).parent
TARGET = HERE.parent / "kubernetes" / "overlays" / "production" / "prometheusrule.yaml"
HEAD = """\
# Rules for the Prometheus operator: made by `python -m deploy.prometheus.build`, change them in
# deploy/prometheus/rules. Your Prometheus' `ruleSelector` may want a label here, as kube-prometheus
# does (`release: NAME`).
"""


def document() -> str:
    """A PrometheusRule with the groups of all files, as text."""
    groups = [
        group
        for path in sorted((HERE / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
    ]
    made = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "sailplane"},
        "spec": {"groups": groups},
    }
    return HEAD + yaml.safe_dump(made, sort_keys=False, width=100, allow_unicode=True)


if __name__ == "__main__":
    TARGET.write_text(document(), "utf-8")
