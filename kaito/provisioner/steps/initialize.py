"""Initializes the node: it is Ready, temporary taints are removed, and the requested resources are allocatable.

Kaito's claims of nodes with whole GPUs request no GPUs, only disk. The GPUs of the instance type are therefore required
as well; upstream reports a node as initialized before its device plugin has registered any. The claim of a node with
divided GPUs requests its slices, and all of them are required: their number is not in the list of instance types.
"""

from dataclasses import dataclass

from kaito.api import labels
from kaito.api.karpenter import conditions
from kaito.cloud.errors import CloudError
from kaito.provisioner import reasons
from kaito.provisioner.context import ReconcileContext
from kaito.runtime.client import MergePatch
from kaito.runtime.errors import NotFound
from kaito.runtime.kinds import Node
from kaito.runtime.meta import Quantity

EPHEMERAL_TAINTS = frozenset(
    {
        ("node.kubernetes.io/not-ready", "NoSchedule"),
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoSchedule"),
        ("node.cloudprovider.kubernetes.io/uninitialized", "NoSchedule"),
        (labels.TAINT_UNREGISTERED, "NoExecute"),
    }
)
"""Taints that Kubernetes removes from a starting node, by key and effect (Karpenter v1)."""

DISK_RESOURCE = "storage"
"""Request for the size of the operating system disk; nodes have no resource of that name."""

GPU_RESOURCES = (labels.NVIDIA_GPU, labels.AMD_GPU)

_NONE = Quantity(0)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Reason and message of the condition of a node that is not usable yet."""

    reason: str
    message: str


async def initialize(ctx: ReconcileContext, node: Node) -> None:
    """Sets the stage Initialized once the node is usable, and mirrors the node's Ready."""
    capacity, allocatable = node.status.capacity, node.status.allocatable
    if capacity != ctx.claim.status.capacity or allocatable != ctx.claim.status.allocatable:
        ctx.status.set_fields(capacity=capacity, allocatable=allocatable)
    if not ctx.status.is_true(ctx.claim.stages.initialized):
        await _initialize(ctx, node)
    _mirror_ready(ctx, node)


async def _initialize(ctx: ReconcileContext, node: Node) -> None:
    obstacle = await find_obstacle(ctx, node)
    if obstacle is not None:
        ctx.status.set_initialized("Unknown", obstacle.reason, obstacle.message)
        return
    try:
        await ctx.api.patch(node, MergePatch.between(node, initialized(node)))
    except NotFound:
        ctx.status.set_initialized("Unknown", conditions.NODE_NOT_FOUND, f"node {node.name} does not exist")
        return
    ctx.status.set_initialized("True")
    ctx.event(reasons.INITIALIZED, f"node {node.name} is usable")
    instance_type = ctx.claim.labels.get(labels.INSTANCE_TYPE, "")
    age = ctx.age_seconds(ctx.claim.metadata.creation_timestamp)
    ctx.deps.metrics.stage_seconds.labels("initialized", instance_type).observe(age)


def initialized(node: Node) -> Node:
    """The node with the label of a usable node."""
    return node.with_metadata(labels={**node.labels, labels.INITIALIZED: labels.TRUE})


async def find_obstacle(ctx: ReconcileContext, node: Node) -> Obstacle | None:
    """Why the node is not usable yet; None if it is."""
    return _find_readiness_obstacle(ctx, node) or await _find_missing_resource(ctx, node)


def _find_readiness_obstacle(ctx: ReconcileContext, node: Node) -> Obstacle | None:
    if not node.is_ready:
        return Obstacle(conditions.NODE_NOT_READY, "Node status is NotReady")
    present = {(taint.key, taint.effect) for taint in node.spec.taints}
    for taint in ctx.claim.spec.startup_taints:
        if (taint.key, taint.effect) in present:
            return Obstacle(conditions.STARTUP_TAINTS_EXIST, f'StartupTaint "{taint}" still exists')
    for key, effect in sorted(present & EPHEMERAL_TAINTS):
        return Obstacle(conditions.EPHEMERAL_TAINTS_EXIST, f'KnownEphemeralTaint "{key}:{effect}" still exists')
    return None


async def _find_missing_resource(ctx: ReconcileContext, node: Node) -> Obstacle | None:
    allocatable, is_divided = node.status.allocatable, labels.GPU_INSTANCE_PROFILE in ctx.claim.annotations
    for name, amount in ctx.claim.spec.resources.requests.items():
        if name == DISK_RESOURCE or not amount:
            continue
        present = allocatable.get(name, _NONE)
        if not present:
            return Obstacle(conditions.RESOURCE_NOT_REGISTERED, f'Resource "{name}" was requested but not registered')
        if is_divided and present < amount:
            message = f'Resource "{name}": {present} of {amount} slices of GPUs are registered (device plugin)'
            return Obstacle(conditions.RESOURCE_NOT_REGISTERED, message)
    return None if is_divided else await _find_missing_gpus(ctx, node)


async def _find_missing_gpus(ctx: ReconcileContext, node: Node) -> Obstacle | None:
    """Why the node does not have the GPUs of its instance type; None if it has."""
    allocatable = node.status.allocatable
    try:
        instance_type = await ctx.cloud.instance_type(ctx.claim.labels.get(labels.INSTANCE_TYPE, ""))
    except CloudError as error:
        ctx.request.requeue_after(error.retry_after or ctx.settings.poll_interval_seconds, "unknown GPU count")
        message = f"cannot determine the GPU count of the instance type: {error}"
        return Obstacle(conditions.CLOUD_UNAVAILABLE, message)
    expected = instance_type.gpus if instance_type else int(node.labels.get(labels.MACHINE_TYPE) == "gpu")
    present = sum(int(allocatable.get(name, Quantity(0))) for name in GPU_RESOURCES)
    if present < expected:
        message = f'Resource "{labels.NVIDIA_GPU}": {present} of {expected} GPUs are registered (device plugin)'
        return Obstacle(conditions.RESOURCE_NOT_REGISTERED, message)
    return None


def _mirror_ready(ctx: ReconcileContext, node: Node) -> None:
    """Copies the node's Ready to the claim's `NodeReady`, so that later failures of the node appear on the claim."""
    ready = node.condition("Ready")
    if node.deleting:
        ctx.status.set_node_ready("False", conditions.NODE_NOT_READY, f"node {node.name} is being deleted")
    elif ready is not None and ready.status == "True":
        ctx.status.set_node_ready("True")
    else:
        detail = f": {ready.reason} {ready.message}".rstrip() if ready is not None else ""
        update = ctx.status.set_node_ready("False", conditions.NODE_NOT_READY, f"Node status is NotReady{detail}")
        note = f"node {node.name} is NotReady{detail}"
        ctx.request.event_on_change(update, on="status", reason=reasons.NODE_UNHEALTHY, note=note)
