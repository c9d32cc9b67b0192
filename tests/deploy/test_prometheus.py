"""Prometheus' configuration and rules, by its own tools, and what those do not ask."""

from __future__ import annotations

import re
import subprocess

import pytest

from deploy.prometheus.build import TARGET, document
from server.errors import INTERNAL, TABLE, NeverFits
from tests.deploy.material import CASES, DEPLOY, RULES, alerts, recorded
from tests.deploy.processes import require_tool


def promtool(*arguments: object) -> str:
    done = subprocess.run(
        [require_tool("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_configuration_is_one_and_finds_its_rules():
    told = promtool("check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    assert f"{len(RULES)} rule files found" in told


def test_the_operators_object_is_made_of_these_rules():
    assert TARGET.read_text("utf-8") == document(), "python -m deploy.prometheus.build"


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_rules_do_what_their_cases_say(path):
    assert "SUCCESS" in promtool("test", "rules", path)


def test_every_alert_fires_in_one_case_and_keeps_quiet_in_another():
    text = "\n".join(path.read_text("utf-8") for path in CASES)
    named = [rule["alert"] for rule in alerts()]
    assert len(named) == len(set(named))
    assert [name for name in named if f'alertname="{name}"' not in text] == []
    assert text.count("exp_samples: []") >= 2 * len(CASES), "cases in which nothing fires"


def test_every_recorded_rule_is_computed_in_a_case():
    text = "\n".join(path.read_text("utf-8") for path in CASES)
    assert [r["record"] for r in recorded() if f"{r['record']}" not in text] == []


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule):
    assert rule["alert"].startswith("Sailplane")
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert 10 < len(rule["annotations"]["summary"]) < 90
    assert len(rule["annotations"]["description"].split()) > 12


def test_faults_are_the_codes_that_no_client_can_help():
    ours = {row.code for row in (*TABLE.values(), INTERNAL) if row.status >= 500}
    faults = [r for r in recorded() if r["record"].startswith("sailplane:faults:")]
    assert len(faults) == 4
    for rule in faults:
        (listed,) = re.findall('code=~"([^"]+)"', rule["expr"])
        assert set(listed.split("|")) == ours - {TABLE[NeverFits].code}
