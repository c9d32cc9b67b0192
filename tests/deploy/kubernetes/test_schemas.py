"""Every object against the schema of its kind, unknown fields refused."""

from __future__ import annotations

import copy
import warnings

import kubernetes_validate
import pytest

from tests.deploy.kubernetes.rendering import KEPT, OVERLAYS, needs_kubectl, render

pytestmark = needs_kubectl
VERSIONS = ("1.31", kubernetes_validate.latest_version())
CUSTOM = {"ServiceMonitor", "PrometheusRule"}
"""Kinds that Kubernetes itself does not know."""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_objects_are_what_kubernetes_says_they_are(overlay, version):
    checked = set()
    for kind, each in render(overlay).items():
        if kind not in CUSTOM:
            kubernetes_validate.validate(each, version, strict=True)
            checked.add(kind)
    assert {"Deployment", "Service", "ServiceAccount", "ConfigMap"} <= checked


@pytest.mark.parametrize("version", VERSIONS)
def test_the_check_sees_a_slip(version):
    odd = copy.deepcopy(render("demo")["Deployment"])
    odd["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(odd, version, strict=True)


@pytest.mark.slow  # its models take seconds to import
@pytest.mark.parametrize("overlay", KEPT)
@pytest.mark.parametrize("kind", sorted(CUSTOM))
def test_objects_of_the_operator_are_what_it_says_they_are(overlay, kind):
    with warnings.catch_warnings(action="ignore"):
        models = pytest.importorskip("cloudcoil.models.prometheus_operator.v1")
    given = render(overlay)[kind]
    read = getattr(models, kind).model_validate(given)
    # What they do not know they pass over: so it must come back whole.
    assert read.model_dump(mode="json", by_alias=True, exclude_unset=True) == given
