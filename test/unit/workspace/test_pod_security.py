"""Pods of presets pass the Pod Security level `restricted`, have no API token, and bound their shared memory."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from kaito.api import Workspace
from kaito.models.weights import Weights
from kaito.workspace.manifests.inference import inference_stateful_set
from kaito.workspace.manifests.tuning import tuning_job
from kaito.workspace.plan import Hardware, ModelContainer, Plan
from kaito.workspace.settings import WorkspaceSettings

SETTINGS = WorkspaceSettings()
PULLED = Weights(method="Pull", artifact="r.example/models/phi:1")
RESTRICTED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def violations(spec: dict[str, Any]) -> Iterator[str]:
    """Applies the controls of Pod Security `restricted` (Kubernetes documentation, "Pod Security Standards")."""
    pod = spec.get("securityContext", {})
    if any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        yield "host namespaces"
    if pod.get("runAsNonRoot") is not True or pod.get("runAsUser") == 0:
        yield "runAsNonRoot"
    if pod.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        yield "seccompProfile"
    for volume in spec.get("volumes", []):
        if not set(volume) - {"name"} <= RESTRICTED_VOLUMES:
            yield f"volume {volume}"
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            yield f"{container['name']}: allowPrivilegeEscalation"
        if "ALL" not in own.get("capabilities", {}).get("drop", []) or own["capabilities"].get("add"):
            yield f"{container['name']}: capabilities"
        if own.get("runAsNonRoot", True) is not True or own.get("runAsUser") == 0:
            yield f"{container['name']}: runAsNonRoot"
        if any(port.get("hostPort") for port in container.get("ports", [])):
            yield f"{container['name']}: hostPort"


def serving(workspace: Workspace, plan: Plan) -> dict[str, Any]:
    spec: dict[str, Any] = inference_stateful_set(workspace, plan, SETTINGS).to_dict()["spec"]["template"]["spec"]
    return spec


@pytest.fixture(params=["inference", "tuning"])
def spec(request: pytest.FixtureRequest, phi: Workspace, plan: Plan, model_container: ModelContainer) -> dict[str, Any]:
    """A pod with everything that a Workspace can add: init containers, credentials, configuration, weights."""
    full = replace(plan, container=replace(model_container, weights=PULLED, pull_secrets=("pull",)), config_map="mine")
    if request.param == "inference":
        source = {"name": "a", "image": "r.example/a:1", "imagePullSecrets": ["pull"]}
        inference = {"preset": {"name": "phi-3-mini-4k-instruct"}, "adapters": [{"source": source}]}
        return serving(phi.evolve(inference=inference), full)
    tuning = {
        "preset": {"name": "phi-3-mini-128k-instruct"},
        "method": "qlora",
        "input": {"image": "r.example/data:1", "imagePullSecrets": ["pull"]},
        "output": {"image": "r.example/out:1", "imagePushSecret": "push"},
    }
    workspace = Workspace.model_validate(phi.to_dict() | {"inference": None, "tuning": tuning})
    found: dict[str, Any] = tuning_job(workspace, full, SETTINGS).to_dict()["spec"]["template"]["spec"]
    return found


def test_pods_are_restricted(spec: dict[str, Any]) -> None:
    assert list(violations(spec)) == []
    assert spec["initContainers"]


@pytest.mark.parametrize(
    ("change", "violation"),
    [
        ({"hostNetwork": True}, "host namespaces"),
        ({"securityContext": {}}, "runAsNonRoot"),
        ({"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}, "volume"),
        ({"containers": [{"name": "c"}]}, "c: allowPrivilegeEscalation"),
    ],
)
def test_the_rules_of_this_test_find_violations(spec: dict[str, Any], change: dict[str, Any], violation: str) -> None:
    assert any(found.startswith(violation) for found in violations(spec | change))


def test_pods_write_to_volumes_only_and_have_no_token(spec: dict[str, Any]) -> None:
    assert spec["automountServiceAccountToken"] is False
    for container in [*spec["containers"], *spec["initContainers"]]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
        assert {"name": "HOME", "value": "/tmp"} in container["env"]
        assert not any(mount["mountPath"].startswith("/root") for mount in container["volumeMounts"])


def test_variables_of_services_are_not_set(spec: dict[str, Any]) -> None:
    assert spec["enableServiceLinks"] is False


@pytest.mark.parametrize(("gpus", "limit"), [(0, "2Gi"), (1, "2Gi"), (2, "4Gi"), (8, "16Gi")])
def test_shared_memory_is_bounded_by_the_number_of_gpus(
    phi: Workspace, plan: Plan, hardware: Hardware, gpus: int, limit: str
) -> None:
    found = serving(phi, replace(plan, hardware=replace(hardware, gpus=gpus)))
    assert found["volumes"][0] == {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": limit}}


def test_a_cache_in_the_memory_of_the_pod_is_not_bounded_by_the_shared_memory(phi: Workspace, plan: Plan) -> None:
    found = serving(phi, replace(plan, host_cache=True))
    assert found["volumes"][0] == {"name": "dshm", "emptyDir": {"medium": "Memory"}}


def test_a_template_keeps_its_own_security(phi: Workspace, plan: Plan) -> None:
    template = {"spec": {"containers": [{"name": "server", "image": "mine:1"}]}}
    found = serving(phi.evolve(inference={"template": template}), replace(plan, container=None))
    assert set(found) == {"containers", "affinity", "tolerations"}
    assert found["containers"] == [{"name": "server", "image": "mine:1"}]
