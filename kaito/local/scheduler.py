"""The scheduler of the local cluster: binds a pending pod to a node that fits.

A node fits when it is ready and schedulable, its taints are tolerated, node selector and required affinity hold, and
the extended resources (GPUs) that a pod requests are free. Nodes are tried in the order of their names.
"""

import contextlib
from collections.abc import Iterable
from decimal import Decimal

from kaito.runtime.client import Client, MergePatch
from kaito.runtime.controller import Controller
from kaito.runtime.errors import Conflict, NotFound
from kaito.runtime.kinds import Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration
from kaito.runtime.reconcile import Again, Request

RETRY_SECONDS = 1.0


def scheduler(client: Client) -> Controller[Pod]:
    """The controller, for a manager that caches nodes."""

    async def run(request: Request[Pod]) -> Again | None:
        return await schedule(request, client)

    return Controller(Pod, run, name="scheduler", workers=1)


async def schedule(request: Request[Pod], client: Client) -> Again | None:
    """Binds the pod, or reports the reason in its PodScheduled condition."""
    pod = request.object
    if pod.spec.node_name or pod.deleting or pod.status.phase in {"Failed", "Succeeded"}:
        return None
    nodes = await request.api.list(Node)
    others = await request.api.list(Pod)
    problems = {node.name: problem_of(pod, node, others) for node in nodes}
    fitting = sorted(name for name, problem in problems.items() if problem is None)
    if fitting:
        await bind(client, pod, fitting[0])
        return None
    reasons = sorted({problem for problem in problems.values() if problem})
    message = f"0/{len(nodes)} nodes are available: {', '.join(reasons) or 'no nodes in the cluster'}."
    reported = pod.condition("PodScheduled")
    if reported is None or reported.message != message:
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        patch = MergePatch({"status": {"phase": "Pending", "conditions": [condition]}})
        await request.api.patch(pod, patch, subresource="status")
    return Again(RETRY_SECONDS, why="no node fits")


async def bind(client: Client, pod: Pod, node: str) -> None:
    """Binds the pod through its subresource; a pod that is bound or deleted already is skipped."""
    path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/binding"
    target = {"apiVersion": "v1", "kind": "Node", "name": node}
    metadata = {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid}
    with contextlib.suppress(Conflict, NotFound):
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
        await client.raw("POST", path, body=body)


def problem_of(pod: Pod, node: Node, others: Iterable[Pod]) -> str | None:
    """Why the pod cannot run on the node, in kube-scheduler's wording; None when it can."""
    if node.spec.unschedulable:
        return "node(s) were unschedulable"
    if not node.is_ready:
        return "node(s) were not ready"
    if any(not tolerated(taint, pod.spec.tolerations) for taint in node.spec.taints):
        return "node(s) had untolerated taint"
    if not selects(pod, node):
        return "node(s) didn't match Pod's node affinity/selector"
    here = [other for other in others if other.spec.node_name == node.name and other.key != pod.key]
    return lacking(pod, node, [other for other in here if other.status.phase not in {"Failed", "Succeeded"}])


def tolerated(taint: Taint, tolerations: Iterable[Toleration]) -> bool:
    """Whether a taint allows the pod (`PreferNoSchedule` never forbids)."""
    if taint.effect == "PreferNoSchedule":
        return True
    return any(
        (toleration.key is None or toleration.key == taint.key)
        and (toleration.effect is None or toleration.effect == taint.effect)
        and (toleration.operator == "Exists" or (toleration.value or "") == (taint.value or ""))
        for toleration in tolerations
    )


def selects(pod: Pod, node: Node) -> bool:
    """Whether node selector and required node affinity hold."""
    if any(node.labels.get(key) != value for key, value in pod.spec.node_selector.items()):
        return False
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    return required is None or any(term_matches(term, node) for term in required.node_selector_terms)


def term_matches(term: NodeSelectorTerm, node: Node) -> bool:
    """Whether all of a term's expressions hold."""
    fields = {"metadata.name": node.name}
    return all(holds(expression, node.labels) for expression in term.match_expressions) and all(
        holds(expression, fields) for expression in term.match_fields
    )


def holds(expression: NodeSelectorRequirement, values: dict[str, str]) -> bool:
    """Whether one expression holds for a node's labels."""
    value = values.get(expression.key)
    match expression.operator:
        case "In":
            return value in expression.values
        case "NotIn":
            return value not in expression.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and int(value) > int(expression.values[0])
        case "Lt":
            return value is not None and int(value) < int(expression.values[0])
        case _:
            return False  # an operator of a newer API server: kube-scheduler matches no node for an unknown operator


def lacking(pod: Pod, node: Node, others: Iterable[Pod]) -> str | None:
    """Which extended resource the node has too little of."""
    used: dict[str, Decimal] = {}
    for other in others:
        for name, amount in extended_requests(other).items():
            used[name] = used.get(name, Decimal(0)) + amount
    for name, amount in extended_requests(pod).items():
        capacity = node.status.allocatable.get(name)
        if (capacity.value if capacity else Decimal(0)) - used.get(name, Decimal(0)) < amount:
            return f"Insufficient {name}"
    return None


def extended_requests(pod: Pod) -> dict[str, Decimal]:
    """Extended resources that the pod's containers request; CPU and memory are not limited here."""
    total: dict[str, Decimal] = {}
    for container in pod.spec.containers:
        wanted = {**container.resources.limits, **container.resources.requests}
        for name, amount in wanted.items():
            if "/" in name:
                total[name] = total.get(name, Decimal(0)) + amount.value
    return total
