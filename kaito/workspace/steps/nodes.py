"""Finds the Workspace's nodes and evaluates them.

Runs before the claims step, because nodes that the Workspace already has need no claim. Writes labels only: ownership
of preferred nodes, and the label that the NVIDIA device plugin selects, on nodes that do not advertise their GPUs.
"""

from typing import Final

from kaito.api import Workspace, conditions, labels
from kaito.runtime.client import MergePatch
from kaito.runtime.kinds import Node
from kaito.runtime.meta import find_condition
from kaito.workspace.context import ReconcileContext
from kaito.workspace.indexes import NODES
from kaito.workspace.manifests.placement import pod_tolerations
from kaito.workspace.nodes import (
    NodesReport,
    evaluate_nodes,
    find_free_preferred_nodes,
    is_stable,
    preferred_node_labels,
    unused_preferred_nodes,
)
from kaito.workspace.plan import Hardware, Plan
from kaito.workspace.settings import NodeApi

RESYNC_SECONDS: Final = 30.0
"""Interval at which a Workspace without enough nodes is reconciled without an event."""

REPLACE_SECONDS: Final = 300.0
"""Interval at which a Workspace on created nodes looks for free preferred nodes."""


async def observe_nodes(ctx: ReconcileContext, plan: Plan | None) -> NodesReport:
    """Evaluates the Workspace's nodes, and labels free preferred nodes as its own."""
    hardware = ctx.state.hardware(ctx.workspace)
    nodes = await _list_nodes(ctx)
    report = _report(ctx, hardware, nodes)
    if plan is None or ctx.is_read_only or ctx.settings.node_api is NodeApi.BYO:
        return report
    adopted = await _adopt_preferred_nodes(ctx, hardware, report)
    if adopted:
        report = _report(ctx, hardware, [*nodes, *adopted])
    await _label_for_device_plugin(ctx, hardware, nodes)
    return report


def _report(ctx: ReconcileContext, hardware: Hardware, nodes: list[Node]) -> NodesReport:
    """Evaluates the nodes and stores the result before anything is written, because a write may fail."""
    report = evaluate_nodes(
        ctx.workspace,
        hardware,
        nodes,
        node_api=ctx.settings.node_api,
        tolerations=pod_tolerations(ctx.workspace, ctx.settings),
    )
    ctx.state.nodes = report
    if not report.is_sufficient:
        ctx.request.requeue_after(RESYNC_SECONDS, "nodes pending")
    return report


async def _list_nodes(ctx: ReconcileContext) -> list[Node]:
    if ctx.settings.node_api is NodeApi.BYO:
        return await ctx.api.list(Node, labels=ctx.workspace.resource.label_selector)
    return await ctx.api.list(Node, index=NODES(str(ctx.workspace.key)))


async def _adopt_preferred_nodes(ctx: ReconcileContext, hardware: Hardware, report: NodesReport) -> list[Node]:
    """Labels as many free preferred nodes as are missing, so that only this Workspace uses them.

    If none is missing, one is labeled that can take the place of a node that was created (`steps.surplus`).
    """
    names = ctx.workspace.resource.preferred_nodes
    missing = hardware.count - len(report.usable)
    if not names or missing < 0:
        return []
    is_replacing = missing == 0
    if is_replacing:
        if not may_replace(ctx.workspace, hardware, report):
            return []
        ctx.request.requeue_after(REPLACE_SECONDS, "a preferred node may be free")
    found = [await ctx.api.find(Node, name, consistency="live") for name in names]
    existing = [node for node in found if node is not None and (not is_replacing or is_stable(node, ctx.now))]
    tolerations = pod_tolerations(ctx.workspace, ctx.settings)
    free = find_free_preferred_nodes(ctx.workspace, hardware, existing, tolerations)
    if missing > len(free):
        ctx.state.unused_preferred = unused_preferred_nodes(ctx.workspace, hardware, existing, tolerations)
    patch = MergePatch({"metadata": {"labels": preferred_node_labels(ctx.workspace)}})
    return [await ctx.api.patch(node, patch) for node in free[: max(missing, 1)]]


def may_replace(workspace: Workspace, hardware: Hardware, report: NodesReport) -> bool:
    """Whether a copy may move from a created node to a preferred one: others serve meanwhile, and it has a node of its
    own."""
    ready = find_condition(workspace.status.conditions, conditions.INFERENCE_READY)
    is_created = [name for name in report.usable if labels.PREFERRED not in report.by_name[name].labels]
    is_ready = ready is not None and ready.is_true
    return is_ready and hardware.count > 1 and not hardware.is_group and bool(is_created)


async def _label_for_device_plugin(ctx: ReconcileContext, hardware: Hardware, nodes: list[Node]) -> None:
    """Adds `accelerator=nvidia` to ready nodes that advertise too few GPUs: the plugin's DaemonSet selects it."""
    if hardware.gpu_resource != labels.NVIDIA_GPU:
        return
    patch = MergePatch({"metadata": {"labels": {labels.ACCELERATOR: labels.ACCELERATOR_NVIDIA}}})
    for node in nodes:
        advertised = int(node.status.capacity.get(hardware.gpu_resource, 0))
        if node.is_ready and advertised < hardware.gpus_per_node and labels.ACCELERATOR not in node.labels:
            await ctx.api.patch(node, patch)
