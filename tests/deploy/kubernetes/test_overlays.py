"""Objects fit each other, the server's settings, and its image."""

from __future__ import annotations

import re

import pytest

from server.cli.public import require_guarded
from server.settings import SettingsError, read_settings
from tests.deploy.kubernetes.rendering import (
    KEPT,
    OVERLAYS,
    ROOT,
    containers,
    environment,
    mounts,
    needs_kubectl,
    pod,
    render,
    server,
)

pytestmark = needs_kubectl
overlays = pytest.mark.parametrize("overlay", OVERLAYS)
kept = pytest.mark.parametrize("overlay", KEPT)
IMAGE = {"SAILPLANE_HOST": "0.0.0.0", "SAILPLANE_PORT": "8080", "SAILPLANE_LIBRARY": "/library"}
"""What the image sets; compared with it below."""


@pytest.fixture
def settings(overlay, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, value in {**IMAGE, **environment(overlay)}.items():
        monkeypatch.setenv(name, value)
    return read_settings().settings


@overlays
def test_the_server_takes_its_settings_and_would_start(settings, overlay):
    require_guarded(settings)
    assert (settings.library_url is not None) is (overlay == "object-store")
    assert settings.allow_anonymous is (overlay == "demo")


@overlays
def test_it_is_killed_no_sooner_than_a_drain_may_take(settings, overlay):
    most = settings.linger_seconds + 2 * settings.drain_seconds
    assert most < pod(overlay)["terminationGracePeriodSeconds"] <= most + 15
    assert settings.linger_seconds >= 5, "proxies need seconds to look away"
    assert "lifecycle" not in server(overlay), "the server lingers by itself"


@overlays
def test_ports_are_those_that_the_server_listens_at(settings, overlay):
    ports = {p["name"]: p["containerPort"] for p in server(overlay)["ports"]}
    assert ports == {"http": settings.port, "metrics": settings.metrics_port}
    assert settings.metrics_host == "0.0.0.0"
    for port in render(overlay)["Service"]["spec"]["ports"]:
        assert port["port"] == ports[port["targetPort"]]
    sorts = ("startup", "liveness", "readiness")
    assert {sort: server(overlay)[f"{sort}Probe"]["httpGet"] for sort in sorts} == {
        "startup": {"path": "/health", "port": "http"},
        "liveness": {"path": "/health", "port": "http"},
        "readiness": {"path": "/ready", "port": "http"},
    }


@overlays
def test_no_variables_of_services_reach_the_server(overlay, monkeypatch):
    assert pod(overlay)["enableServiceLinks"] is False
    monkeypatch.setenv("SAILPLANE_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(SettingsError, match="service_host"):
        read_settings()


@overlays
def test_pods_may_do_nothing(overlay):
    """Pod Security's profile `restricted`, and a root that nobody writes to."""
    spec = pod(overlay)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert all(v.keys() & {"emptyDir", "secret", "persistentVolumeClaim"} for v in spec["volumes"])
    for container in containers(overlay):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        resources = container["resources"]
        assert {"cpu", "memory"} <= resources["requests"].keys() & resources["limits"].keys()


@overlays
def test_selectors_find_the_pods(overlay):
    objects = render(overlay)
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    selectors = [objects["Service"]["spec"]["selector"]]
    if overlay != "demo":
        selectors += [
            objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
            objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        ]
    selectors += [
        spread["labelSelector"]["matchLabels"]
        for spread in pod(overlay)["topologySpreadConstraints"]
    ]
    assert all(selector and selector.items() <= labels for selector in selectors)
    assert {o["metadata"]["namespace"] for o in objects.values()} == {"sailplane"}


@kept
def test_objects_name_each_other(overlay):
    objects = render(overlay)
    monitor = objects["ServiceMonitor"]["spec"]
    service = objects["Service"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] in {p["name"] for p in service["spec"]["ports"]}
    scaled = objects["HorizontalPodAutoscaler"]["spec"]
    deployment = objects["Deployment"]
    assert scaled["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "name": deployment["metadata"]["name"],
    }
    assert "replicas" not in deployment["spec"], "the autoscaler's"
    assert objects["PodDisruptionBudget"]["spec"]["maxUnavailable"] < scaled["minReplicas"]


@kept
def test_the_library_lies_on_a_volume_that_all_write_to_or_on_one_of_each(overlay):
    objects = render(overlay)
    (volume,) = [v for v in pod(overlay)["volumes"] if v["name"] == "library"]
    seeded = [c["name"] for c in pod(overlay).get("initContainers", ())]
    if overlay == "object-store":
        assert volume.keys() == {"name", "emptyDir"}
        assert "PersistentVolumeClaim" not in objects
        assert seeded == [], "a copy must begin empty"
    else:
        claim = objects["PersistentVolumeClaim"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
        assert seeded == ["seed"]


@kept
def test_keys_and_library_lie_where_the_server_looks(settings, overlay):
    where = mounts(server(overlay))
    assert str(settings.keys.parent) == where["keys"]
    assert str(settings.library) == where["library"]
    assert all("subPath" not in m for m in server(overlay)["volumeMounts"]), "it would not follow"


@kept
def test_only_ingress_and_prometheus_get_in_and_only_names_and_the_store_are_asked(overlay):
    policy = render(overlay)["NetworkPolicy"]["spec"]
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    ports = {p["name"] for p in server(overlay)["ports"]}
    assert [[p["port"] for p in rule["ports"]] for rule in policy["ingress"]] == [
        ["http"], ["metrics"]
    ]  # fmt: skip
    assert ports == {"http", "metrics"}
    assert all(rule["from"] for rule in policy["ingress"])
    asked = [{53}, {443}] if overlay == "object-store" else [{53}]
    assert [{p["port"] for p in rule["ports"]} for rule in policy["egress"]] == asked
    assert all(rule["to"] for rule in policy["egress"])


@overlays
def test_it_agrees_with_the_image(overlay):
    file = ROOT / "docker" / "Dockerfile"
    if not file.exists():
        pytest.skip("there is no docker/Dockerfile to compare with")
    text = file.read_text("utf-8")
    user = pod(overlay)["securityContext"]
    assert re.search(r"^USER (.+)$", text, re.MULTILINE)[1] == (
        f"{user['runAsUser']}:{user['runAsGroup']}"
    )
    assert re.search(r"^EXPOSE (.+)$", text, re.MULTILINE)[1] == IMAGE["SAILPLANE_PORT"]
    assert all(re.search(rf"\b{n}={re.escape(v)}(\s|$)", text) for n, v in IMAGE.items())
    assert re.search(r"^COPY --chown=10001:10001 \S+ (\S+)$", text, re.MULTILINE)[1] == "/library"
    assert "HOME=/tmp" in text
    assert mounts(server(overlay))["tmp"] == "/tmp"
    assert "command" not in server(overlay), "the image's own"
