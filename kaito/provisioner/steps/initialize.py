"""Initialization: the node is usable. It is Ready, nothing temporary keeps pods off, and what was asked for is there.

Kaito's claims request nothing but disk, so the GPUs the size has are required as well: upstream calls a node
initialized before its device plugin has announced any, and then waits a second time elsewhere.
"""

from dataclasses import dataclass

from kaito.api import labels
from kaito.api.karpenter import conditions
from kaito.cloud.errors import CloudError
from kaito.provisioner import reasons
from kaito.provisioner.context import Pass
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
"""Taints that go by themselves while a node comes up, by key and effect (Karpenter v1)."""

NOT_A_NODE_RESOURCE = "storage"
"""Kaito's spelling of the disk's size; nodes have no resource of that name."""

GPU_RESOURCES = (labels.NVIDIA_GPU, labels.AMD_GPU)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a node is not usable yet."""

    reason: str
    message: str


async def initialize(run: Pass, node: Node) -> None:
    """Say whether the node is usable, once and for all; and how it is now."""
    if node.status.capacity != run.claim.status.capacity or node.status.allocatable != run.claim.status.allocatable:
        run.report.set(capacity=node.status.capacity, allocatable=node.status.allocatable)
    if not run.report.holds(run.claim.stages.initialized):
        await _initialize(run, node)
    _mirror_health(run, node)


async def _initialize(run: Pass, node: Node) -> None:
    obstacle = _not_up(run, node) or await _lacks_resources(run, node)
    if obstacle is not None:
        run.report.initialized("Unknown", obstacle.reason, obstacle.message)
        return
    try:
        await run.api.patch(node, MergePatch({"metadata": {"labels": {labels.INITIALIZED: labels.TRUE}}}))
    except NotFound:
        run.report.initialized("Unknown", conditions.NODE_NOT_FOUND, f"node {node.name} is gone")
        return
    run.report.initialized("True")
    run.event(reasons.INITIALIZED, f"node {node.name} is usable")
    size = run.claim.labels.get(labels.INSTANCE_TYPE, "")
    age = run.age(run.claim.metadata.creation_timestamp)
    run.tools.metrics.stage_seconds.labels("initialized", size).observe(age)


def _not_up(run: Pass, node: Node) -> Obstacle | None:
    if not node.is_ready:
        return Obstacle(conditions.NODE_NOT_READY, "Node status is NotReady")
    present = {(taint.key, taint.effect) for taint in node.spec.taints}
    for taint in run.claim.spec.startup_taints:
        if (taint.key, taint.effect) in present:
            return Obstacle(conditions.STARTUP_TAINTS_EXIST, f'StartupTaint "{taint}" still exists')
    for key, effect in sorted(present & EPHEMERAL_TAINTS):
        return Obstacle(conditions.EPHEMERAL_TAINTS_EXIST, f'KnownEphemeralTaint "{key}:{effect}" still exists')
    return None


async def _lacks_resources(run: Pass, node: Node) -> Obstacle | None:
    allocatable = node.status.allocatable
    for name, amount in run.claim.spec.resources.requests.items():
        if name != NOT_A_NODE_RESOURCE and amount and not allocatable.get(name):
            return Obstacle(conditions.RESOURCE_NOT_REGISTERED, f'Resource "{name}" was requested but not registered')
    try:
        size = await run.cloud.instance_type(run.claim.labels.get(labels.INSTANCE_TYPE, ""))
    except CloudError as error:
        run.wake(error.retry_after or run.settings.poll_interval, "the size's GPU count is not known yet")
        return Obstacle(conditions.CLOUD_UNAVAILABLE, f"how many GPUs the size has is not known: {error}")
    expected = size.gpus if size else int(node.labels.get(labels.MACHINE_TYPE) == "gpu")
    present = sum(int(allocatable.get(name, Quantity(0))) for name in GPU_RESOURCES)
    if present < expected:
        message = f'Resource "{labels.NVIDIA_GPU}": {present} of {expected} GPUs are registered (device plugin)'
        return Obstacle(conditions.RESOURCE_NOT_REGISTERED, message)
    return None


def _mirror_health(run: Pass, node: Node) -> None:
    """The node's own Ready on the claim, so that later trouble shows where people look."""
    ready = node.condition("Ready")
    if node.deleting:
        run.report.node_ready("False", conditions.NODE_NOT_READY, f"node {node.name} is being deleted")
    elif ready is not None and ready.status == "True":
        run.report.node_ready("True")
    else:
        said = f": {ready.reason} {ready.message}".rstrip() if ready is not None else ""
        run.report.node_ready("False", conditions.NODE_NOT_READY, f"Node status is NotReady{said}")
        before = run.report.condition(conditions.NODE_READY)
        if before is not None and before.is_true:
            run.event(reasons.NODE_UNHEALTHY, f"node {node.name} is NotReady{said}", warning=True)
