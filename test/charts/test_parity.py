"""The charts contain what `config` contains: an object that is changed on one side only fails here."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from test.charts.rendering import CHARTS, NAMES, ROOT, Objects, comparable, kustomize, template

CLAIM_CRDS = {
    ("CustomResourceDefinition", "machines.karpenter.sh"),
    ("CustomResourceDefinition", "nodeclaims.karpenter.sh"),
}
NOT_IN_CHARTS = {("Namespace", "kaito-system")}
"""Helm installs into a namespace that exists."""


def both(controller: dict[str, Any] | None = None, provisioner: dict[str, Any] | None = None) -> Objects:
    """The objects of both charts."""
    first, second = template("workspace-controller", values=controller), template("gpu-provisioner", values=provisioner)
    assert first.keys() & second.keys() == set(), "Helm refuses an object that belongs to another release"
    return first | second


def expected(path: str) -> Objects:
    """The objects of a kustomization that the charts must contain."""
    found = kustomize(path).items()
    return {key: value for key, value in found if key not in NOT_IN_CHARTS}


def assert_same(charts: Objects, config: Objects) -> None:
    assert sorted(charts) == sorted(config)
    charts, config = comparable(charts), comparable(config)
    for key, document in config.items():
        assert charts[key] == document, key


def test_the_defaults_are_the_default_installation() -> None:
    charts, config = both(), expected("config/default")
    config["ConfigMap", "gpu-provisioner-azure"]["data"] = {
        "ARM_SUBSCRIPTION_ID": "s", "ARM_RESOURCE_GROUP": "g", "AZURE_CLUSTER_NAME": "c", "LOCATION": "l"
    }  # fmt: skip
    assert_same(charts, config)


def test_the_values_for_aks_are_the_overlay() -> None:
    files = {name: template(name, CHARTS / name / "values" / "aks.yaml") for name in NAMES}
    assert_same(files["workspace-controller"] | files["gpu-provisioner"], expected("config/overlays/aks"))


@pytest.mark.parametrize("name", ["existing-nodes", "karpenter", "karpenter-node-pools"])
def test_the_values_without_gpu_provisioner_are_the_overlay(name: str) -> None:
    config = expected(f"config/overlays/{name}")
    if name == "existing-nodes":  # the overlay keeps the CRDs of claims, which nothing uses
        config = {key: value for key, value in config.items() if key not in CLAIM_CRDS}
    chart = "workspace-controller"
    assert_same(template(chart, CHARTS / chart / "values" / f"{name}.yaml"), config)


def test_secure_metrics_are_the_component() -> None:
    activator = {"activator": {"enabled": True}}
    secure = both(activator | {"metrics": {"secure": True}}, {"controller": {"metrics": {"secure": True}}})
    added = {key: secure[key] for key in sorted(secure.keys() - both(activator).keys())}
    component = yaml.safe_load_all((ROOT / "config/components/secure-metrics/rbac.yaml").read_text())
    roles = {(d["kind"], d["metadata"]["name"]): d for d in component}
    for role in roles.values():
        role["metadata"]["labels"] = {"kaito.sh/installation": "true"}
    assert_same(added, roles)


def test_the_component_of_secure_metrics_changes_every_deployment(tmp_path: Path) -> None:
    folder = Path(os.path.relpath(ROOT / "config", tmp_path))
    components = [str(folder / "components" / name) for name in ("activator", "secure-metrics")]
    overlay = {"resources": [str(folder / "default")], "components": components}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    args = {
        name: document["spec"]["template"]["spec"]["containers"][0]["args"]
        for (kind, name), document in kustomize(str(tmp_path)).items()
        if kind == "Deployment"
    }
    assert args.keys() == {"workspace-controller", "workspace-activator", "gpu-provisioner"}
    assert all("--metrics-secure" in each for each in args.values()), args


def test_the_component_of_tracing_sets_the_flag_of_both_managers(tmp_path: Path) -> None:
    folder = Path(os.path.relpath(ROOT / "config", tmp_path))
    overlay = {"resources": [str(folder / "default")], "components": [str(folder / "components/tracing")]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    added = {
        name: document["spec"]["template"]["spec"]["containers"][0]["args"][-1]
        for (kind, name), document in kustomize(str(tmp_path)).items()
        if kind == "Deployment"
    }
    flag = "--tracing-endpoint=http://otel-collector.monitoring:4318"
    assert added == {"workspace-controller": flag, "gpu-provisioner": flag}


def test_the_activator_is_the_component() -> None:
    charts = both({"activator": {"enabled": True}})
    added = {key: charts[key] for key in sorted(charts.keys() - both().keys())}
    folder = ROOT / "config/components/activator"
    documents = [d for name in ("activator", "rbac") for d in yaml.safe_load_all((folder / f"{name}.yaml").read_text())]
    component = {(d["kind"], d["metadata"]["name"]): d for d in documents}
    for document in component.values():
        document["metadata"].setdefault("labels", {})["kaito.sh/installation"] = "true"
    assert_same(added, component)


def test_monitoring_is_that_of_config() -> None:
    on = {"enabled": True}
    controller = {"podMonitor": on, "models": on, "prometheusRule": on, "dashboard": on}
    charts = both({"monitoring": controller}, {"monitoring": {"podMonitor": on, "prometheusRule": on}})
    config = kustomize("config/monitoring")
    for document in config.values():  # config/monitoring is not part of the installation
        document["metadata"].setdefault("labels", {})["kaito.sh/installation"] = "true"
    assert_same({key: charts[key] for key in charts.keys() - both().keys()}, config)


def test_the_version_of_the_charts_is_that_of_the_repository() -> None:
    version = (ROOT / "VERSION").read_text().strip()
    for name in NAMES:
        chart = yaml.safe_load((CHARTS / name / "Chart.yaml").read_text())
        assert (chart["version"], chart["appVersion"]) == (version, version), name
