"""Builds the parts that the pods of all presets have: placement, volumes, resources, security settings.

`inference` and `tuning` add their container and their data. The pods pass the Pod Security level `restricted`: they run
as an unprivileged user, cannot write to their image, and have no token for the API server.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from kaito.api import Workspace, labels
from kaito.api.json_values import json_object, without_nulls
from kaito.api.workspace import PodOptions, PodResources
from kaito.runtime.meta import Quantity
from kaito.workspace.manifests.adapters import PodParts
from kaito.workspace.manifests.placement import placed, tolerations
from kaito.workspace.manifests.weights import weights_parts
from kaito.workspace.ownership import pod_labels
from kaito.workspace.plan import Hardware, ModelContainer, Plan
from kaito.workspace.pod_options import pod_options
from kaito.workspace.settings import WorkspaceSettings
from kaito.workspace.weights import WeightsChoice, weights_record

CONFIG_DIR: Final = "/mnt/config"

USER_ID: Final = 65532
"""User and group of the containers: `nonroot`, as in distroless images. Kaito's images have no other user."""

POD_SECURITY: Final[dict[str, Any]] = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "fsGroup": USER_ID,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""Security context of a pod. Without `OnRootMismatch`, the kubelet changes the group of every file of a large volume at
each start."""

CONTAINER_SECURITY: Final[dict[str, Any]] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
"""Security context of every container, init containers included."""

TEMPORARY_DIR: Final = "/tmp"  # noqa: S108 - a volume of the pod
"""Directory for temporary files; with the mounted volumes, the only one that a container may write to. It is the home
directory, because libraries keep caches and compiled kernels there."""

SHARED_MEMORY_PER_GPU: Final = Quantity("2Gi")
"""Limit of `/dev/shm` per GPU, and for a pod without GPU. vLLM's message queues between the processes of an engine and
NCCL's buffers where GPUs have no direct link need a few hundred MiB per GPU; 2 GiB leaves a margin, and a defect cannot
fill the memory of the node."""


NO_RESOURCES: Final = PodResources()


def preset_template(
    workspace: Workspace,
    plan: Plan,
    model: ModelContainer,
    settings: WorkspaceSettings,
    *,
    container: dict[str, Any],
    parts: Sequence[PodParts],
) -> dict[str, Any]:
    """Returns the pod template of a preset.

    Args:
        workspace: the owner.
        plan: nodes and configuration.
        model: image and command.
        settings: of the controller.
        container: fields of the main container besides those that every preset has.
        parts: what the features of the Workspace add to the pod.
    """
    options = pod_options(workspace, settings.pod_defaults)
    everything = [storage(plan), weights_parts(model), *parts]
    inits = [init for part in everything for init in part.init_containers]
    env: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in sorted(model.env.items())]
    tracing = [{"name": name, "value": value} for name, value in sorted(plan.trace_environment.items())]
    main = {
        "name": _main_name(workspace, inits),
        "image": model.image,
        "command": list(model.command),
        "env": [*env, *access_token(model), *tracing, *(variable for part in everything for variable in part.env)],
        "resources": container_resources(plan.hardware, settings, options.resources),
        "volumeMounts": [mount for part in everything for mount in part.mounts],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **container,
    }
    spec: dict[str, Any] = {
        "containers": [_container(main, options)],
        "initContainers": [{**_container(init, options), **_init_resources(options.resources)} for init in inits],
        "volumes": [
            *(volume for part in everything for volume in part.volumes),
            *(without_nulls(volume) for volume in options.volumes),
        ],
        **placed(workspace, plan.hardware, settings.node_api),
        "nodeSelector": dict(options.node_selector),
        "tolerations": tolerations(workspace, [toleration.to_dict() for toleration in options.tolerations]),
        "imagePullSecrets": pull_secret_names(model.pull_secrets, *(part.pull_secrets for part in everything)),
        "securityContext": {**POD_SECURITY, **_fields(options.pod_security_context)},
        "serviceAccountName": options.service_account_name,
        "priorityClassName": options.priority_class_name,
        "runtimeClassName": options.runtime_class_name,
    }
    annotations = {labels.CONFIG_HASH: plan.config_hash} if plan.config_hash else {}
    return {
        "metadata": {
            "labels": {**options.labels, **pod_labels(workspace)},
            "annotations": {**options.annotations, **annotations},
        },
        "spec": {
            **{name: value for name, value in spec.items() if value},
            "automountServiceAccountToken": False,
            # vLLM reads variables named VLLM_*: a Service `vllm` in the namespace would set VLLM_PORT.
            "enableServiceLinks": False,
        },
    }


def weights_annotation(plan: Plan) -> dict[str, str]:
    """Returns the annotation of the workload with the source of its weights; none for a pod template."""
    model = plan.container
    if model is None or not model.weights_inputs:
        return {}
    return {labels.WEIGHTS: weights_record(WeightsChoice(weights=model.weights, inputs=model.weights_inputs))}


def container_resources(
    hardware: Hardware, settings: WorkspaceSettings, given: PodResources = NO_RESOURCES
) -> dict[str, Any]:
    """Returns requests and limits: all GPUs of a node, and CPU and memory so that the pod is not evicted first.

    Args:
        hardware: the nodes.
        settings: requests of CPU and memory by default.
        given: requests and limits of `podOptions`; a default above a limit is lowered to the limit.
    """
    gpus = {hardware.gpu_resource: str(hardware.gpus)} if hardware.gpus else {}
    requests = {
        name: amount if (limit := given.limits.get(name)) is None or Quantity(amount) <= limit else str(limit)
        for name, amount in (("cpu", settings.default_inference_cpu), ("memory", settings.default_inference_memory))
    }
    return {
        "requests": {**requests, **_amounts(given.requests), **gpus},
        "limits": {**_amounts(given.limits), **gpus},
    }


def _init_resources(given: PodResources) -> dict[str, Any]:
    """Returns the resources of init containers: those of `podOptions`, which a quota may require for every container.

    The scheduler counts the larger of init containers and containers, so that they take nothing in addition.
    """
    both = {"requests": _amounts(given.requests), "limits": _amounts(given.limits)}
    found = {name: amounts for name, amounts in both.items() if amounts}
    return {"resources": found} if found else {}


def _amounts(given: Mapping[str, Quantity]) -> dict[str, str]:
    return {name: str(amount) for name, amount in given.items()}


def access_token(model: ModelContainer) -> list[dict[str, Any]]:
    """Returns the environment variable `HF_TOKEN` from the Workspace's Secret."""
    if not model.access_secret:
        return []
    reference = {"name": model.access_secret, "key": "HF_TOKEN", "optional": True}
    return [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}}]


def pull_secret_names(*sources: Iterable[str]) -> list[dict[str, str]]:
    """Returns `imagePullSecrets` without duplicates, in their order."""
    return [{"name": name} for name in dict.fromkeys(name for source in sources for name in source)]


def shared_memory(plan: Plan) -> dict[str, Any]:
    """Returns the volume for `/dev/shm`.

    With a key-value cache in the memory of the pod, it has no limit of its own: vLLM keeps that cache in `/dev/shm`,
    and the user chose its share of the memory. The kubelet then limits it to the memory of the pod or of the node.
    """
    source: dict[str, Any] = {"medium": "Memory"}
    if not plan.host_cache:
        source["sizeLimit"] = f"{int(SHARED_MEMORY_PER_GPU) // 2**30 * max(plan.hardware.gpus, 1)}Gi"
    return {"name": "dshm", "emptyDir": source}


def storage(plan: Plan) -> PodParts:
    """Returns the volumes of every preset pod: shared memory, temporary files, configuration."""
    parts = PodParts()
    parts.volumes.extend((shared_memory(plan), {"name": "tmp", "emptyDir": {}}))
    parts.mounts.append({"name": "dshm", "mountPath": "/dev/shm"})  # noqa: S108 - shared memory of torch
    if plan.config_map:
        parts.volumes.append({"name": "config-volume", "configMap": {"name": plan.config_map}})
        parts.mounts.append({"name": "config-volume", "mountPath": CONFIG_DIR, "readOnly": True})
    return parts


def _main_name(workspace: Workspace, inits: Sequence[Mapping[str, Any]]) -> str:
    """Returns the name of the container that runs the model: the Workspace's, unless an init container has it."""
    return "model" if any(init["name"] == workspace.name for init in inits) else workspace.name


def _container(container: dict[str, Any], options: PodOptions) -> dict[str, Any]:
    """Returns the container without privileges, with a directory for temporary files, and with the options.

    What a container needs for its task takes precedence over the options.
    """
    given = [variable.to_dict() for variable in options.env]
    replaced = {variable["name"] for variable in given}
    env = [{"name": "HOME", "value": TEMPORARY_DIR}, *container.get("env", ())]
    return {
        **container,
        "env": [*(variable for variable in env if variable["name"] not in replaced), *given],
        "volumeMounts": [
            *container.get("volumeMounts", ()),
            {"name": "tmp", "mountPath": TEMPORARY_DIR},
            *(without_nulls(mount) for mount in options.volume_mounts),
        ],
        "securityContext": {
            **CONTAINER_SECURITY,
            **_fields(options.security_context),
            **container.get("securityContext", {}),
        },
    }


def _fields(given: Mapping[str, Any] | None) -> dict[str, Any]:
    return json_object(without_nulls(given))
