"""Renders the Helm charts and the kustomizations for comparison."""

import json
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from hack.tools import locate

ROOT = Path(__file__).resolve().parents[2]
CHARTS = ROOT / "charts"
NAMES = ("workspace-controller", "gpu-provisioner")
NAMESPACE = "kaito-system"

Objects = dict[tuple[str, str], dict[str, Any]]
"""Objects by kind and name."""

AZURE = {"subscriptionId": "s", "resourceGroup": "g", "clusterName": "c", "location": "l"}
REQUIRED: dict[str, dict[str, Any]] = {
    "gpu-provisioner": {"settings": {"azure": AZURE}},
    "workspace-controller": {},
    "console": {},
}
"""Values without which a chart is not rendered."""

_HELM_LABELS = {
    "helm.sh/chart",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/version",
}
_HELM_ANNOTATIONS = {"helm.sh/resource-policy", "checksum/settings"}


class RenderError(Exception):
    """Helm refused the values; the message is Helm's."""


def template(chart: str, *files: Path, values: dict[str, Any] | None = None) -> Objects:
    """Returns the objects of `helm template` with the required values, value files and further values."""
    arguments = [f"--values={path}" for path in files]
    return _template(chart, tuple(arguments), json.dumps(values or {}), needs_settings=not files)


@cache
def _template(chart: str, arguments: tuple[str, ...], values: str, *, needs_settings: bool) -> Objects:
    given = yaml.safe_load(values)
    if needs_settings:
        given = REQUIRED[chart] | given
    command: list[str | Path] = [locate("helm"), "template", "kaito", CHARTS / chart, f"--namespace={NAMESPACE}"]
    command += [*arguments, "-f", "-"]
    result = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RenderError(result.stderr)
    return by_name(result.stdout)


@cache
def kustomize(path: str) -> Objects:
    """Returns the objects of `kubectl kustomize`."""
    command = ["kubectl", "kustomize", str(ROOT / path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return by_name(result.stdout)


def by_name(text: str) -> Objects:
    """Parses a stream of manifests."""
    found: Objects = {}
    for document in yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if document is None:
            continue
        key = (document["kind"], document["metadata"]["name"])
        assert key not in found, f"{key} occurs twice"
        found[key] = document
    return found


def comparable(objects: Objects) -> Objects:
    """Returns the objects without what only Helm adds, and with the API server's defaults where one side has them."""
    return {key: _comparable(document) for key, document in objects.items()}


def _comparable(document: dict[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(document))
    pod: dict[str, Any] = copied.get("spec", {}).get("template", {}).get("metadata", {})
    metadata: dict[str, Any] = copied["metadata"]
    metadata["labels"] = {
        name: value for name, value in metadata.get("labels", {}).items() if name not in _HELM_LABELS
    } | {"app.kubernetes.io/name": ""}
    for each in (metadata, pod):
        annotations: dict[str, str] = each.pop("annotations", None) or {}
        kept = {name: value for name, value in annotations.items() if name not in _HELM_ANNOTATIONS}
        if kept:
            each["annotations"] = kept
    if copied["kind"] == "Deployment":
        spec = copied["spec"]
        spec.setdefault("revisionHistoryLimit", 10)
        spec["strategy"].setdefault("type", "RollingUpdate")
        for container in spec["template"]["spec"]["containers"]:
            container.setdefault("imagePullPolicy", "IfNotPresent")
            container.setdefault("env", []).sort(key=_name)
    if copied["kind"] == "NetworkPolicy":
        copied["spec"]["ingress"].sort(key=json.dumps)
    return copied


def _name(variable: dict[str, Any]) -> str:
    return str(variable["name"])


def container(objects: Objects, name: str) -> dict[str, Any]:
    """The container of a Deployment."""
    pod = objects["Deployment", name]["spec"]["template"]["spec"]
    found: list[dict[str, Any]] = pod["containers"]
    assert len(found) == 1
    return found[0]


def helm(*arguments: str | Path, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Runs helm."""
    command: Sequence[str | Path] = [locate("helm"), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not check or result.returncode == 0, f"{' '.join(map(str, arguments))}: {result.stdout}{result.stderr}"
    return result
