"""What overlays have run: the seed of a library, a server with their settings, the adapter's query.

Real processes, with the paths of containers moved into a folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

from experts.atomic import LOCK
from server.access.keyfile import write_keys
from server.access.keys import make_key
from tests.deploy.kubernetes.rendering import (
    FOLDER,
    ROOT,
    environment,
    needs_kubectl,
    pod,
    render,
    server,
)
from tests.server.cli.test_public import free_port
from tests.server.cli.test_serve import BODY, wait_until_ready

NAME = "sailplane_queue_samples"
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool runs the query, and there is none here"
)


class Seed:
    """The init container's script over folders of a test."""

    def __init__(self, folder: Path) -> None:
        self.image, self.shared = folder / "image", folder / "shared"
        shutil.copytree(ROOT / "library" / "minilm" / "sst2", self.image / "sst2")
        (self.image / "calibration.json").write_text("{}")
        self.shared.mkdir()
        (container,) = pod("production")["initContainers"]
        moved = {"/shared": str(self.shared), "/library": str(self.image)}
        self.command = [*container["command"], *container["args"]]
        for path, here in moved.items():
            self.command = [part.replace(path, here) for part in self.command]

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command, start_new_session=True)

    def run(self) -> None:
        assert self.start().wait(timeout=30) == 0

    @property
    def same(self) -> bool:
        told = subprocess.run(["diff", "-rx", LOCK, self.image, self.shared], capture_output=True)
        return told.returncode == 0


@pytest.fixture
def seed(tmp_path: Path) -> Seed:
    return Seed(tmp_path)


@needs_kubectl
def test_an_empty_library_begins_as_a_copy_and_a_library_stays(seed):
    pods = [seed.start(), seed.start()]
    assert [pod.wait(timeout=30) for pod in pods] == [0, 0]
    assert seed.same
    shutil.rmtree(seed.shared / "sst2")
    seed.run()
    assert not (seed.shared / "sst2").exists(), "what was removed does not come back"


@needs_kubectl
def test_a_copy_that_was_cut_off_is_begun_again(seed):
    whole = seed.command[-1]
    begun = f"cp -R {seed.image}/sst2 {seed.shared}; kill -9 $$ #"
    seed.command[-1] = whole.replace("cp -R", begun)
    assert seed.start().wait(timeout=30) != 0
    (seed.shared / "sst2" / "expert.json").write_text("{")
    seed.command[-1] = whole
    seed.run()
    assert seed.same


@pytest.mark.slow  # it lingers
@needs_kubectl
def test_a_server_with_the_settings_of_production_answers_its_probes_and_stops_in_time(tmp_path):
    key, token = make_key("root", ["infer"])
    write_keys(tmp_path / "keys.json", [key])
    (tmp_path / "library").mkdir()
    ports = {"http": free_port(), "metrics": free_port()}
    said = environment("production") | {
        "SAILPLANE_BACKBONE": "tiny-random",
        "SAILPLANE_LIBRARY": str(tmp_path / "library"),
        "SAILPLANE_KEYS": str(tmp_path / "keys.json"),
        "SAILPLANE_HOST": "0.0.0.0",
        "SAILPLANE_PORT": str(ports["http"]),
        "SAILPLANE_METRICS_PORT": str(ports["metrics"]),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", "from server.cli import app; app()", "serve"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), **said},
    )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{ports['http']}"
        wait_until_ready(process, address)
        for name in ("startup", "liveness", "readiness"):
            asked = server("production")[f"{name}Probe"]["httpGet"]
            assert httpx.get(f"http://127.0.0.1:{ports[asked['port']]}{asked['path']}").is_success
        (endpoint,) = render("production")["ServiceMonitor"]["spec"]["endpoints"]
        scraped = httpx.get(f"http://127.0.0.1:{ports[endpoint['port']]}{endpoint['path']}")
        assert f"\n{NAME} 0.0" in scraped.text, "what the autoscaler goes by"
        process.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert httpx.get(f"{address}/ready").status_code == 503
        bearer = {"Authorization": f"Bearer {token}"}
        late = httpx.post(f"{address}/v1/decisions", headers=bearer, json=BODY)
        assert late.status_code == 200, "it lingers, and answers whom a proxy still sends"
        assert process.wait(timeout=pod("production")["terminationGracePeriodSeconds"]) == 0
    finally:
        process.kill()
        process.wait()


@needs_kubectl
@needs_promtool
def test_the_autoscaler_sees_each_pods_mean_of_a_minute(tmp_path):
    (rule,) = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    (metric,) = render("production")["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    assert rule["seriesQuery"].partition("{")[0] == NAME
    query = (  # as the adapter fills it in for a HorizontalPodAutoscaler
        rule["metricsQuery"]
        .replace("<<.Series>>", NAME)
        .replace("<<.LabelMatchers>>", 'namespace="sailplane",pod=~"a|b"')
        .replace("<<.GroupBy>>", "pod")
    )
    series = [
        {"series": f'{NAME}{{namespace="sailplane",pod="a",instance="1:9090"}}',
         "values": "0 0 0 0 0 0 40 0 20 0 60 0"},
        {"series": f'{NAME}{{namespace="sailplane",pod="b",instance="2:9090"}}',
         "values": "3x11"},
        {"series": f'{NAME}{{namespace="other",pod="a",instance="3:9090"}}',
         "values": "1000x11"},
        {"series": 'sailplane_waiting_prompts{namespace="sailplane",pod="a",instance="1:9090"}',
         "values": "7x11"},
    ]  # fmt: skip
    expected = [{"labels": '{pod="a"}', "value": 27}, {"labels": '{pod="b"}', "value": 3}]
    case = {"interval": "10s", "input_series": series, "promql_expr_test": [
        {"expr": query, "eval_time": "110s", "exp_samples": expected}]}  # fmt: skip
    (tmp_path / "cases.yml").write_text(yaml.safe_dump({"tests": [case]}))
    told = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "cases.yml"], capture_output=True, text=True
    )
    assert told.returncode == 0, told.stdout + told.stderr
