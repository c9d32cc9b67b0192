"""compose.yaml: it fits the schema, what it names exists, and it gives away nothing it need not."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from server.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker" / "compose.yaml"
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
TEXT = COMPOSE.read_text("utf-8")
FILE = yaml.safe_load(VARIABLE.sub(lambda found: found[2] or "", TEXT))
SERVICES = FILE["services"]
SAILPLANE = SERVICES["sailplane"]
WITHOUT_SHELL = {"collector"}
"""Services whose image has nothing that could ask after their health."""
ASKING = {"sample"}
"""Services that nobody asks anything."""
MOUNTS = [
    (name, *volume.split(":"))
    for name, service in SERVICES.items()
    for volume in service.get("volumes", [])
]


def seconds(duration: str) -> float:
    return float(re.fullmatch(r"(\d+)s", duration)[1])


def mounted(service: str) -> dict[str, Path]:
    """The repository's files in a service, by where they are there."""
    return {
        inside: (COMPOSE.parent / outside).resolve()
        for name, outside, inside, *_ in MOUNTS
        if name == service and outside.startswith(".")
    }


@pytest.mark.skipif(
    importlib.util.find_spec("check_jsonschema") is None,
    reason="check-jsonschema, which holds the schema, is not installed: make check",
)
def test_it_fits_the_compose_schema(tmp_path):
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    told = subprocess.run([*check, COMPOSE], capture_output=True, text=True)
    assert told.returncode == 0, told.stdout
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(TEXT.replace("cap_drop:", "cap_drops:"), "utf-8")
    assert subprocess.run([*check, wrong], capture_output=True).returncode == 1


def test_every_variable_has_a_default():
    assert [name for name, default in VARIABLE.findall(TEXT) if not default] == []


def test_one_up_gives_a_server_a_dashboard_and_a_sample_load():
    plain = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert plain == {"sailplane", "prometheus", "grafana", "sample"}
    profiles = {
        name: service["profiles"] for name, service in SERVICES.items() if name not in plain
    }
    assert profiles == {"locust": ["load"], "collector": ["tracing"]}


def test_one_variable_publishes_the_server_and_nothing_that_asks_for_no_key(monkeypatch):
    published = yaml.safe_load(TEXT.replace("${PUBLISH:-127.0.0.1}", "0.0.0.0"))["services"]
    ports = {name: service.get("ports", []) for name, service in published.items()}
    public = {name for name, all in ports.items() for p in all if not p.startswith("127.0.0.1:")}
    assert public == {"sailplane"}


def test_images_are_pinned_or_built_here():
    assert SAILPLANE["build"]["dockerfile"] == "docker/Dockerfile"
    images = {name: s["image"] for name, s in SERVICES.items() if "build" not in s}
    loose = {n: i for n, i in images.items() if not re.search(r":v?\d+\.\d+\.\d+$", i)}
    assert loose == {}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_do_no_more_than_it_must(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert [p for p in service.get("ports", []) if not p.startswith("127.0.0.1:")] == []
    written = [v for n, _, *v in MOUNTS if n == name and v[-1] != "ro"]
    assert written == {"sailplane": [["/library"]], "prometheus": [["/prometheus"]]}.get(name, [])


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - WITHOUT_SHELL - ASKING))
def test_a_service_is_asked_after_its_health(name):
    if name == "sailplane":  # the image says how
        assert "HEALTHCHECK" in (ROOT / "docker" / "Dockerfile").read_text("utf-8")
    else:
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_who_needs_a_service_waits_until_it_is_healthy():
    waits = [w for s in SERVICES.values() for w in s.get("depends_on", {}).items()]
    assert {name for name, _ in waits} == {"sailplane", "prometheus"}
    assert all(how == {"condition": "service_healthy"} for _, how in waits)


def test_the_environment_names_settings_that_exist():
    named = {name.removeprefix(PREFIX).lower() for name in SAILPLANE["environment"]} - {
        "otel_exporter_otlp_endpoint"
    }
    assert named - Settings.model_fields.keys() == set()


def test_a_stop_waits_for_the_drain():
    given = SAILPLANE["environment"]
    drain, linger = (
        float(given.get(f"{PREFIX}{name.upper()}", Settings.model_fields[name].default))
        for name in ("drain_seconds", "linger_seconds")
    )
    # The engine finishes what it holds, then uvicorn waits as long for who reads the answers.
    assert seconds(SAILPLANE["stop_grace_period"]) > linger + 2 * drain


@pytest.mark.parametrize(
    "path",
    sorted({str(path.relative_to(ROOT)) for n in SERVICES for path in mounted(n).values()}),
)
def test_what_is_mounted_exists(path):
    path = ROOT / path
    assert path.exists()
    assert path.is_file() or any(path.iterdir())


def test_prometheus_finds_the_port_of_the_metrics_and_the_rules():
    at = mounted("prometheus")
    text = at["/etc/prometheus/prometheus.yml"].read_text("utf-8")
    config = yaml.safe_load(text)
    jobs = config["scrape_configs"]
    targets = {t for job in jobs for s in job["static_configs"] for t in s["targets"]}
    assert f"sailplane:{SAILPLANE['environment'][f'{PREFIX}METRICS_PORT']}" in targets
    for pattern in config["rule_files"]:
        folder = Path("/etc/prometheus", pattern).parent
        assert list(at[str(folder)].glob(Path(pattern).name))


def test_grafana_finds_prometheus_and_the_dashboards():
    at = mounted("grafana")
    provisioning = at["/etc/grafana/provisioning"]
    (sources,) = (provisioning / "datasources").glob("*.yaml")
    (source,) = yaml.safe_load(sources.read_text("utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (providers,) = (provisioning / "dashboards").glob("*.yaml")
    (provider,) = yaml.safe_load(providers.read_text("utf-8"))["providers"]
    assert list(at[provider["options"]["path"]].glob("*.json"))


def test_the_sample_load_is_one_user_who_asks():
    command = SERVICES["sample"]["command"]
    locustfile = mounted("sample")["/mnt/locust"] / Path(command[command.index("-f") + 1]).name
    assert f"class {command[-1]}(" in locustfile.read_text("utf-8")
    assert "LOAD_RATE" in "".join(p.read_text("utf-8") for p in locustfile.parent.glob("*.py"))
