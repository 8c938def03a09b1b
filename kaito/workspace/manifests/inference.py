"""Builds the StatefulSet that serves a model, from a preset or from the user's pod template.

Each node runs one pod with the whole model. The template contains digests of its inputs, so that pods are replaced if
and only if an input changes.
"""

import math
from collections.abc import Iterable
from typing import Any

from kaito.api import Workspace, labels
from kaito.api.json_values import without_nulls
from kaito.runtime.kinds import PodTemplateSpec, StatefulSet, StatefulSetSpec
from kaito.runtime.meta import LabelSelector, ObjectMeta
from kaito.workspace.digest import digest
from kaito.workspace.manifests.adapters import PodParts, adapter_parts
from kaito.workspace.manifests.placement import affinity, tolerations
from kaito.workspace.manifests.service import SERVER_PORT, headless_name
from kaito.workspace.ownership import pod_labels
from kaito.workspace.plan import Hardware, ModelContainer, Plan
from kaito.workspace.settings import WorkspaceSettings

CONFIG_DIR = "/mnt/config"
WEIGHTS_DIR = "/workspace/weights"
PROBE_PERIOD_SECONDS = 5
"""Period of the startup and readiness probes: the maximum delay until a ready server is noticed."""


def inference_stateful_set(workspace: Workspace, plan: Plan, settings: WorkspaceSettings) -> StatefulSet:
    """Renders the StatefulSet of an inference Workspace.

    Raises:
        ValueError: the Workspace has neither a planned preset nor a template.
    """
    inference = workspace.inference
    if plan.container is not None:
        template = _preset_template(workspace, plan, plan.container, settings)
    elif inference is not None and inference.template is not None:
        template = _user_template(workspace, without_nulls(inference.template), settings)
    else:
        raise ValueError(f"workspace {workspace.key} has neither a preset nor a template to serve")
    return StatefulSet(
        metadata=ObjectMeta(
            name=workspace.name,
            namespace=workspace.namespace,
            labels=pod_labels(workspace),
            annotations={labels.TEMPLATE_HASH: digest(template)},
        ),
        spec=StatefulSetSpec(
            replicas=plan.hardware.count,
            service_name=headless_name(workspace),
            pod_management_policy="Parallel",
            selector=LabelSelector(match_labels=pod_labels(workspace)),
            template=PodTemplateSpec.model_validate(template),
        ),
    )


def container_resources(hardware: Hardware, settings: WorkspaceSettings) -> dict[str, Any]:
    """Returns requests and limits: all GPUs of a node, and CPU and memory so that the pod is not evicted first."""
    gpus = {hardware.gpu_resource: str(hardware.gpus)} if hardware.gpus else {}
    return {
        "requests": {"cpu": settings.default_inference_cpu, "memory": settings.default_inference_memory, **gpus},
        "limits": gpus,
    }


def access_token(model: ModelContainer) -> list[dict[str, Any]]:
    """Returns the environment variable `HF_TOKEN` from the Workspace's Secret."""
    if not model.access_secret:
        return []
    reference = {"name": model.access_secret, "key": "HF_TOKEN", "optional": True}
    return [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}}]


def pull_secret_names(*sources: Iterable[str]) -> list[dict[str, str]]:
    """Returns `imagePullSecrets` without duplicates, in their order."""
    return [{"name": name} for name in dict.fromkeys(name for source in sources for name in source)]


def storage(plan: Plan) -> PodParts:
    """Returns the volumes of every preset pod: shared memory, weights, configuration."""
    parts = PodParts()
    parts.volumes.append({"name": "dshm", "emptyDir": {"medium": "Memory"}})
    parts.mounts.append({"name": "dshm", "mountPath": "/dev/shm"})  # noqa: S108 - shared memory of torch
    if plan.container and plan.container.downloads:
        parts.volumes.append({"name": "model-weights-volume", "emptyDir": {}})
        parts.mounts.append({"name": "model-weights-volume", "mountPath": WEIGHTS_DIR})
    if plan.config_map:
        parts.volumes.append({"name": "config-volume", "configMap": {"name": plan.config_map}})
        parts.mounts.append({"name": "config-volume", "mountPath": CONFIG_DIR, "readOnly": True})
    return parts


def _probe(*, period: int, failures: int, timeout: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": "/health", "port": SERVER_PORT},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": timeout,
    }


def _probes(model: ModelContainer) -> dict[str, Any]:
    """Returns the probes. Loading may take `readiness_seconds`; later, three failures remove or restart the pod."""
    loading = math.ceil(model.readiness_seconds / PROBE_PERIOD_SECONDS)
    return {
        "startupProbe": _probe(period=PROBE_PERIOD_SECONDS, failures=loading, timeout=3),
        "readinessProbe": _probe(period=PROBE_PERIOD_SECONDS, failures=3, timeout=5),
        "livenessProbe": _probe(period=10, failures=3, timeout=10),
    }


def _preset_template(
    workspace: Workspace, plan: Plan, model: ModelContainer, settings: WorkspaceSettings
) -> dict[str, Any]:
    inference = workspace.inference
    adapters = adapter_parts(inference.adapters if inference else (), model)
    volumes = storage(plan)
    env: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in sorted(model.env.items())]
    container = {
        "name": workspace.name,
        "image": model.image,
        "command": list(model.command),
        "ports": [{"name": "http", "containerPort": SERVER_PORT, "protocol": "TCP"}],
        "env": [*env, *access_token(model), *adapters.env],
        "resources": container_resources(plan.hardware, settings),
        "volumeMounts": [*volumes.mounts, *adapters.mounts],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **_probes(model),
    }
    spec: dict[str, Any] = {
        "containers": [container],
        "initContainers": adapters.init_containers,
        "volumes": [*volumes.volumes, *adapters.volumes],
        "affinity": affinity(workspace, settings.node_api),
        "tolerations": tolerations(),
        "imagePullSecrets": pull_secret_names(model.pull_secrets, adapters.pull_secrets),
    }
    annotations = {labels.CONFIG_HASH: plan.config_hash} if plan.config_hash else {}
    return {
        "metadata": {"labels": pod_labels(workspace), "annotations": annotations},
        "spec": {name: value for name, value in spec.items() if value},
    }


def _user_template(workspace: Workspace, given: dict[str, Any], settings: WorkspaceSettings) -> dict[str, Any]:
    """Adds the labels, tolerations and affinity to the user's template that place it on the Workspace's nodes."""
    metadata: dict[str, Any] = dict(given.get("metadata") or {})
    spec: dict[str, Any] = dict(given.get("spec") or {})
    annotations = {"annotations": metadata["annotations"]} if metadata.get("annotations") else {}
    return {
        "metadata": {**annotations, "labels": {**(metadata.get("labels") or {}), **pod_labels(workspace)}},
        "spec": {
            **spec,
            "affinity": affinity(workspace, settings.node_api, given=spec.get("affinity")),
            "tolerations": tolerations(spec.get("tolerations") or ()),
        },
    }
