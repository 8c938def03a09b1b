"""Builds the StatefulSet that serves a model, from a preset or from the user's pod template.

Each node runs one pod with the whole model. The template contains digests of its inputs, so that pods are replaced if
and only if an input changes.
"""

import math
from typing import Any

from kaito.api import Workspace, labels
from kaito.api.json_values import without_nulls
from kaito.runtime.kinds import PodTemplateSpec, StatefulSet, StatefulSetSpec
from kaito.runtime.meta import LabelSelector, ObjectMeta
from kaito.workspace.digest import digest
from kaito.workspace.manifests.adapters import adapter_parts
from kaito.workspace.manifests.placement import affinity, tolerations
from kaito.workspace.manifests.preset_pod import preset_template, weights_annotation
from kaito.workspace.manifests.service import SERVER_PORT, headless_name
from kaito.workspace.ownership import pod_labels
from kaito.workspace.plan import ModelContainer, Plan
from kaito.workspace.settings import WorkspaceSettings

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
            annotations={labels.TEMPLATE_HASH: digest(template), **weights_annotation(plan)},
        ),
        spec=StatefulSetSpec(
            replicas=plan.hardware.count,
            service_name=headless_name(workspace),
            pod_management_policy="Parallel",
            selector=LabelSelector(match_labels=pod_labels(workspace)),
            template=PodTemplateSpec.model_validate(template),
        ),
    )


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
    container = {"ports": [{"name": "http", "containerPort": SERVER_PORT, "protocol": "TCP"}], **_probes(model)}
    return preset_template(workspace, plan, model, settings, container=container, parts=[adapters])


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
