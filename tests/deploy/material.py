"""What the committed dashboards and rules say, as plain data, for the tests that check it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
CASES = sorted((DEPLOY / "prometheus" / "tests").glob("*.yml"))
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
OURS = r"(?:sailplane|process|python)_[a-z0-9_]+"
NAME = re.compile(rf"\b{OURS}\b(?!=)|\bsailplane:[a-z0-9_:]+\b|\bup\b")
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


@dataclass(frozen=True)
class Asked:
    """One expression and where it stands."""

    place: str
    expr: str


def rules() -> Iterator[dict[str, Any]]:
    for path in RULES:
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]:
            yield from group["rules"]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def recorded() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "record" in rule]


def dashboard(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def panel_queries() -> list[Asked]:
    return [
        Asked(f"{path.stem}: {panel['title']} {target['refId']}", target["expr"])
        for path in DASHBOARDS
        for panel in panels(dashboard(path))
        for target in panel["targets"]
    ]


def names_in(expressions: Iterable[str]) -> set[str]:
    """The metrics that expressions read, without what stands in strings."""
    return {name for text in expressions for name in NAME.findall(re.sub(r'"[^"]*"', '""', text))}


def names_of(registry: CollectorRegistry) -> set[str]:
    """The names under which Prometheus stores what a registry exposes."""
    return {
        family.name + suffix
        for family in registry.collect()
        for suffix in SUFFIXES[family.type]
    }  # fmt: skip
