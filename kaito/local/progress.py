"""Summarizes the state of workspace → claim → pool → node → pod.

`observe` reads the agent's cache and the cloud's state once; the view prints the changes since the last time.
"""

from dataclasses import dataclass
from typing import Any

import aiohttp

from kaito.api.karpenter import Claim, Machine, NodeClaim
from kaito.api.workspace import Workspace
from kaito.local.cluster import LocalCluster
from kaito.runtime.kinds import Node, Pod, Service
from kaito.runtime.meta import find_condition

COLUMNS = ("ResourceReady", "InferenceReady", "WorkspaceReady")
"""The conditions behind the columns of `kubectl get workspace`."""


@dataclass(frozen=True, slots=True)
class Fact:
    """An object of the cluster and its state."""

    kind: str
    name: str
    state: str


async def observe(cluster: LocalCluster, session: aiohttp.ClientSession) -> list[Fact]:
    """The state of every object, in the order of the chain."""
    api = cluster.api
    claim = Machine if cluster.options.node_api == "machine" else NodeClaim
    workspaces = [Fact("workspace", str(w.key), workspace_state(w)) for w in await api.list(Workspace)]
    claims = [Fact(claim.kind.lower(), c.name, claim_state(c)) for c in await api.list(claim)]
    nodes = [Fact("node", node.name, node_state(node)) for node in await api.list(Node)]
    pods = [Fact("pod", str(pod.key), pod_state(pod)) for pod in await api.list(Pod)]
    services = {service.key for service in await api.list(Service) if service.spec.selector}
    urls = [
        Fact("service", str(endpoint.service), endpoint.url)
        for endpoint in cluster.proxy.endpoints
        if endpoint.port == 80 and endpoint.service in services
    ]
    return [*workspaces, *claims, *await pools(cluster, session), *nodes, *pods, *urls]


async def pools(cluster: LocalCluster, session: aiohttp.ClientSession) -> list[Fact]:
    """The agent pools that the cloud has."""
    try:
        async with session.get(f"{cluster.arm_url}/__admin/state") as answer:
            state: dict[str, Any] = await answer.json()
    except aiohttp.ClientError:
        return []
    return [Fact("agent pool", pool["name"], str(pool["state"])) for pool in state.get("pools", [])]


def workspace_state(workspace: Workspace) -> str:
    """The columns, and the cause of the first that is False."""
    conditions = [find_condition(workspace.status.conditions, column) for column in COLUMNS]
    shown = " ".join(
        f"{column}={condition.status if condition else '-'}"
        for column, condition in zip(COLUMNS, conditions, strict=True)
    )
    cause = next((c for c in conditions if c is not None and c.status == "False" and c.message), None)
    deleting = "deleting " if workspace.deleting else ""
    return f"{deleting}{shown}" + (f"  ({cause.reason}: {cause.message})" if cause else "")


def claim_state(claim: Claim) -> str:
    """The last completed stage of the claim, or its failure."""
    known = {condition.type: condition for condition in claim.status.conditions}
    reached = ""
    for step in (claim.stages.launched, claim.stages.registered, claim.stages.initialized, "Ready"):
        condition = known.get(step)
        if condition is None or condition.status != "True":
            waiting = f"{condition.reason}: {condition.message}" if condition and condition.message else ""
            return f"{reached or 'created'}{'; ' if waiting else ''}{waiting}"
        reached = step
    return reached


def node_state(node: Node) -> str:
    """Ready or not, and its GPUs."""
    gpus = node.status.capacity.get("nvidia.com/gpu")
    return ("Ready" if node.is_ready else "NotReady") + (f", {gpus} GPU" if gpus else "")


def pod_state(pod: Pod) -> str:
    """Like the STATUS column of `kubectl get pods`."""
    if pod.deleting:
        return "Terminating"
    for status in [*pod.status.init_container_statuses, *pod.status.container_statuses]:
        if status.state.waiting and status.state.waiting.reason not in {"", "PodInitializing"}:
            return f"{status.state.waiting.reason} (restarts {status.restart_count})"
    return "Running, ready" if pod.is_ready else pod.status.phase or "Pending"
