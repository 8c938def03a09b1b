"""Builds what the pods of a copy need that is divided over several nodes: a leader and its workers.

Two StatefulSets run the pods: `WORKSPACE` with one leader per copy, and the StatefulSet of the workers. Pod g of the
first leads copy g, and the pods of the second are the workers of the copies in their order. The program in the pods
(kaito-vllm) derives its place from its name, joins its leader through the headless Service, and ends together with the
others, so that the kubelet restarts the containers of a copy together.

Only leaders have the label that the client Service selects. A NetworkPolicy limits the ports of the engines, which have
no authentication, to the pods of the Workspace.
"""

import hashlib
from typing import Any, Final

from kaito.api import Workspace, labels
from kaito.runtime.kinds import (
    NetworkPolicy,
    NetworkPolicyIngressRule,
    NetworkPolicyPeer,
    NetworkPolicyPort,
    NetworkPolicySpec,
)
from kaito.runtime.meta import LabelSelector, ObjectMeta
from kaito.workspace.manifests.adapters import PodParts
from kaito.workspace.manifests.service import SERVER_PORT, copy_labels, headless_name
from kaito.workspace.ownership import pod_labels
from kaito.workspace.plan import Plan

_SUFFIX: Final = "-workers"
_MAX_SET_NAME: Final = 52
"""Longest name of a StatefulSet: its pods have a label with the name, a dash and a digest of ten characters."""


def is_group(plan: Plan) -> bool:
    """Whether a copy of the model is divided over several nodes."""
    return plan.hardware.is_group


def copy_selector(workspace: Workspace, plan: Plan) -> str:
    """Returns the label selector of the pods that answer requests, as text."""
    found = copy_labels(workspace, leaders_only=is_group(plan))
    return ",".join(f"{key}={value}" for key, value in found.items())


def workers_name(workspace: Workspace) -> str:
    """Returns the name of the StatefulSet of the workers."""
    name = f"{workspace.name}{_SUFFIX}"
    if len(name) <= _MAX_SET_NAME:
        return name
    digest = hashlib.sha256(workspace.name.encode()).hexdigest()[:8]
    return f"{workspace.name[: _MAX_SET_NAME - len(_SUFFIX) - 9].rstrip('-.')}-{digest}{_SUFFIX}"


def leader_of(workspace: Workspace, worker: str, nodes_per_copy: int) -> str:
    """Returns the name of the pod that leads a worker's copy; empty if the name has no ordinal."""
    ordinal = worker.rpartition("-")[2]
    return f"{workspace.name}-{int(ordinal) // (nodes_per_copy - 1)}" if ordinal.isdecimal() else ""


def policy_name(workspace: Workspace) -> str:
    """Returns the name of the NetworkPolicy."""
    return f"{workspace.name}-group"


def role_labels(workspace: Workspace, role: str) -> dict[str, str]:
    """Returns the labels of the leaders or of the workers."""
    return {**pod_labels(workspace), labels.GROUP_ROLE: role}


def group_parts(workspace: Workspace) -> PodParts:
    """Returns the environment from which the program derives its place in the group.

    `VLLM_HOST_IP` is the address on which the engines connect to each other. `podOptions.env` may replace it, and may
    set `NCCL_SOCKET_IFNAME` and `GLOO_SOCKET_IFNAME`, for nodes with a second network.
    """
    return PodParts(
        env=[
            _from_pod("KAITO_POD_NAME", "metadata.name"),
            {"name": "KAITO_LEADERS", "value": workspace.name},
            {"name": "KAITO_GROUP_SERVICE", "value": headless_name(workspace)},
            _from_pod("VLLM_HOST_IP", "status.podIP"),
        ]
    )


def one_pod_per_node(workspace: Workspace) -> dict[str, Any]:
    """Returns the anti-affinity with which every pod of the Workspace has a node of its own."""
    selector = {"matchLabels": pod_labels(workspace)}
    return {
        "requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": selector, "topologyKey": labels.HOSTNAME}],
    }


def network_policy(workspace: Workspace) -> NetworkPolicy:
    """Returns the policy: the server's port for everyone, every other port for the pods of the Workspace alone."""
    own = LabelSelector(match_labels=pod_labels(workspace))
    return NetworkPolicy(
        metadata=ObjectMeta(name=policy_name(workspace), namespace=workspace.namespace, labels=pod_labels(workspace)),
        spec=NetworkPolicySpec(
            pod_selector=own,
            policy_types=["Ingress"],
            ingress=[
                NetworkPolicyIngressRule(ports=[NetworkPolicyPort(protocol="TCP", port=SERVER_PORT)]),
                NetworkPolicyIngressRule(from_=[NetworkPolicyPeer(pod_selector=own)]),
            ],
        ),
    )


def _from_pod(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
