"""Builds the StatefulSets that serve a model, from a preset or from the user's pod template.

Each node runs one pod. It serves the whole model, or a part of it if a copy is divided over several nodes (see
`manifests.group`). The template contains digests of its inputs, so that pods are replaced if and only if an input
changes.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from kaito.api import Workspace, labels
from kaito.api.json_values import without_nulls
from kaito.runtime.kinds import PodTemplateSpec, StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy
from kaito.runtime.meta import LabelSelector, ObjectMeta
from kaito.workspace.digest import digest
from kaito.workspace.held_upgrades import inputs_annotation
from kaito.workspace.manifests.adapters import adapter_parts, list_name
from kaito.workspace.manifests.group import group_parts, is_group, one_pod_per_node, role_labels, workers_name
from kaito.workspace.manifests.placement import affinity, tolerations
from kaito.workspace.manifests.preset_pod import preset_template, weights_annotation
from kaito.workspace.manifests.service import SERVER_PORT, headless_name
from kaito.workspace.ownership import pod_labels, serving_pod_labels
from kaito.workspace.plan import ModelContainer, Plan
from kaito.workspace.settings import WorkspaceSettings
from kaito.workspace.tracing import trace_annotation

EMPTY: Final[Mapping[str, str]] = MappingProxyType({})

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
        if is_group(plan):
            workers = digest(_worker_template(workspace, plan, plan.container, settings))
            template = _with_role(workspace, template, labels.LEADER, annotations={labels.GROUP_HASH: workers})
    elif inference is not None and inference.template is not None:
        template = _user_template(workspace, without_nulls(inference.template), settings)
    else:
        raise ValueError(f"workspace {workspace.key} has neither a preset nor a template to serve")
    if extra := serving_pod_labels(workspace):
        metadata = template["metadata"]
        template = {**template, "metadata": {**metadata, "labels": {**metadata["labels"], **extra}}}
    return _stateful_set(workspace, plan, template, replicas=plan.hardware.copies)


def worker_stateful_set(workspace: Workspace, plan: Plan, settings: WorkspaceSettings) -> StatefulSet | None:
    """Renders the StatefulSet of the workers; returns None if each node serves the whole model.

    Its pods are not replaced by a rolling update, because those of one copy must be replaced with their leader: the
    controller deletes them.
    """
    if plan.container is None or not is_group(plan):
        return None
    rendered = _stateful_set(
        workspace,
        plan,
        _worker_template(workspace, plan, plan.container, settings),
        replicas=plan.hardware.workers,
    )
    own = role_labels(workspace, labels.WORKER)
    return rendered.evolve(
        metadata=rendered.metadata.evolve(name=workers_name(workspace), labels=own),
        spec=rendered.spec.evolve(
            selector=LabelSelector(match_labels=own), update_strategy=StatefulSetUpdateStrategy(type="OnDelete")
        ),
    )


def _stateful_set(workspace: Workspace, plan: Plan, template: dict[str, Any], *, replicas: int) -> StatefulSet:
    return StatefulSet(
        metadata=ObjectMeta(
            name=workspace.name,
            namespace=workspace.namespace,
            labels=pod_labels(workspace),
            annotations={
                labels.TEMPLATE_HASH: digest(template),
                **weights_annotation(plan),
                **trace_annotation(plan),
                **inputs_annotation(workspace, plan),
            },
        ),
        spec=StatefulSetSpec(
            replicas=replicas,
            service_name=headless_name(workspace),
            pod_management_policy="Parallel",
            selector=LabelSelector(match_labels=pod_labels(workspace)),
            template=PodTemplateSpec.model_validate(template),
        ),
    )


def _with_role(
    workspace: Workspace, template: dict[str, Any], role: str, *, annotations: Mapping[str, str] = EMPTY
) -> dict[str, Any]:
    """Adds the label of the role, and the anti-affinity of the pods of a group."""
    metadata, spec = template["metadata"], template["spec"]
    return {
        "metadata": {
            **metadata,
            "labels": {**metadata["labels"], **role_labels(workspace, role)},
            "annotations": {**metadata["annotations"], **annotations},
        },
        "spec": {**spec, "affinity": {**spec["affinity"], "podAntiAffinity": one_pod_per_node(workspace)}},
    }


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


WORKER_PROBES: Final[dict[str, Any]] = {
    "startupProbe": _probe(period=PROBE_PERIOD_SECONDS, failures=60, timeout=3),
    "livenessProbe": _probe(period=10, failures=6, timeout=10),
}
"""Probes of a worker: whether its program responds. It serves no requests, and it ends with its engine or its group."""


LIFECYCLE: Final[dict[str, Any]] = {"preStop": {"exec": {"command": ["sleep", "5"]}}}
"""A pod that ends answers new requests until every node has removed it from the endpoints of the Service. Only then its
server receives SIGTERM, refuses new requests and finishes those that run."""

TERMINATION_SECONDS: Final = 40
"""Time from the deletion of a pod to SIGKILL: 5 s of `LIFECYCLE`, 25 s for running requests (flags `drain_seconds` and
`kaito_drain_seconds` of the servers), and 10 s in which the engine ends."""

_ENDING_SECONDS: Final = 15
"""Part of `TERMINATION_SECONDS` without running requests."""


def _preset_template(
    workspace: Workspace,
    plan: Plan,
    model: ModelContainer,
    settings: WorkspaceSettings,
    probes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    inference = workspace.inference
    adapters = adapter_parts(inference.adapters if inference else (), model, workspace_list=list_name(workspace))
    ports = [{"name": "http", "containerPort": SERVER_PORT, "protocol": "TCP"}]
    serving = {**_probes(model), "lifecycle": LIFECYCLE} if probes is None else probes
    parts = [adapters, *([group_parts(workspace)] if is_group(plan) else [])]
    container = {"ports": ports, **serving}
    template = preset_template(workspace, plan, model, settings, container=container, parts=parts)
    seconds = max(TERMINATION_SECONDS, _ENDING_SECONDS + math.ceil(plan.drain_seconds or 0))
    return {**template, "spec": {**template["spec"], "terminationGracePeriodSeconds": seconds}}


def _worker_template(
    workspace: Workspace, plan: Plan, model: ModelContainer, settings: WorkspaceSettings
) -> dict[str, Any]:
    template = _preset_template(workspace, plan, model, settings, WORKER_PROBES)
    return _with_role(workspace, template, labels.WORKER)


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
            "tolerations": tolerations(workspace, spec.get("tolerations") or ()),
        },
    }
