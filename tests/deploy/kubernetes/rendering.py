"""Overlays as `kubectl kustomize` renders them, and what is in them."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "kubernetes"
KEPT = ("production", "gpu", "object-store")
"""Overlays of several servers on one library."""
OVERLAYS = ("demo", *KEPT)

Object = dict
needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl renders overlays, and there is none here"
)


@cache
def render(overlay: str) -> dict[str, Object]:
    """Its objects by kind: there is one of each."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER / "overlays" / overlay)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == "", "kustomize warns of what it will not take for long"
    objects = list(yaml.safe_load_all(done.stdout))
    by_kind = {each["kind"]: each for each in objects}
    assert len(by_kind) == len(objects)
    return by_kind


def pod(overlay: str) -> Object:
    return render(overlay)["Deployment"]["spec"]["template"]["spec"]


def server(overlay: str) -> Object:
    (container,) = pod(overlay)["containers"]
    return container


def containers(overlay: str) -> list[Object]:
    return [*pod(overlay).get("initContainers", ()), server(overlay)]


def environment(overlay: str) -> dict[str, str]:
    """The variables of the server's container, as Kubernetes would set them."""
    config = render(overlay)["ConfigMap"]
    assert server(overlay)["envFrom"] == [{"configMapRef": {"name": config["metadata"]["name"]}}]
    assert "env" not in server(overlay)
    return config["data"]


def mounts(container: Object) -> dict[str, str]:
    """Volume name -> path."""
    return {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
