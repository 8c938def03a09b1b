"""Draining: which pods of a leaving node have to go, in which order, and how they are told. The rules are Karpenter's.

Pods go in four waves (others, daemons, critical others, critical daemons); a wave starts when the one before is
empty. They are evicted, so that disruption budgets hold, until the termination time comes near; then they are deleted
with what is left of it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from kaito.api import labels
from kaito.provisioner import reasons
from kaito.provisioner.metrics import ProvisionerMetrics
from kaito.runtime import Api
from kaito.runtime.errors import ApiError, Conflict, NotFound, TooManyRequests
from kaito.runtime.kinds import Node, Pod, Toleration

STUCK_SECONDS = 60.0
"""A pod that should have been gone this long is not waited for: its kubelet is not answering."""

DEFAULT_GRACE_SECONDS = 30
CRITICAL = frozenset({"system-cluster-critical", "system-node-critical"})
TERMINAL = frozenset({"Succeeded", "Failed"})


async def pods_on(api: Api, node: Node) -> list[Pod]:
    """The node's pods, read from the server: a cache of every pod in the cluster is not worth this rare question."""
    return await api.client.list(Pod, fields={"spec.nodeName": node.name})


def awaited(pods: Sequence[Pod], now: datetime) -> list[Pod]:
    """The pods that have to go before the node may."""
    return [pod for pod in pods if not _is_exempt(pod) and not _is_stuck(pod, now)]


def staying(pods: Sequence[Pod]) -> list[Pod]:
    """The pods that draining leaves alone."""
    return [pod for pod in pods if _is_exempt(pod)]


def next_wave(pods: Sequence[Pod]) -> list[Pod]:
    """The pods whose turn it is."""
    waves: dict[tuple[bool, bool], list[Pod]] = {}
    for pod in pods:
        waves.setdefault((_is_critical(pod), _is_daemon(pod)), []).append(pod)
    return waves[min(waves)] if waves else []


async def evict(
    api: Api, node: Node, pods: Sequence[Pod], *, deadline: datetime | None, now: datetime, metrics: ProvisionerMetrics
) -> None:
    """Tell each pod of a wave to go, in the way that its time allows."""
    for pod in pods:
        try:
            await _tell(api, pod, deadline=deadline, now=now)
        except TooManyRequests as refused:
            metrics.evictions.labels("429").inc()
            api.event(node, "Warning", reasons.FAILED_DRAINING, f"pod {pod.key}: {refused.message}", action="Drain")
        except ApiError as refused:
            if isinstance(refused, Conflict) or (isinstance(refused, NotFound) and refused.is_object):
                metrics.evictions.labels("gone").inc()
                continue
            metrics.evictions.labels(str(refused.code)).inc()
            api.event(node, "Warning", reasons.FAILED_DRAINING, f"pod {pod.key}: {refused.message}", action="Drain")
        else:
            metrics.evictions.labels("ok").inc()


async def _tell(api: Api, pod: Pod, *, deadline: datetime | None, now: datetime) -> None:
    grace = pod.spec.termination_grace_period_seconds
    grace = DEFAULT_GRACE_SECONDS if grace is None else grace
    if deadline is not None and now >= deadline - timedelta(seconds=grace):
        left = max(int((deadline - now).total_seconds()), 0)
        leaving = pod.metadata.deletion_timestamp
        if leaving is None or leaving > deadline:
            await api.delete(pod, grace_seconds=left)
        return
    if not pod.deleting and not labels.is_true(pod.annotations.get(labels.DO_NOT_DISRUPT)):
        await api.evict(pod)


def _is_exempt(pod: Pod) -> bool:
    return pod.status.phase in TERMINAL or _is_mirror(pod) or any(map(_tolerates, pod.spec.tolerations))


def _is_mirror(pod: Pod) -> bool:
    return any(owner.kind == "Node" for owner in pod.metadata.owner_references)


def _is_daemon(pod: Pod) -> bool:
    return any(owner.kind == "DaemonSet" for owner in pod.metadata.owner_references)


def _is_critical(pod: Pod) -> bool:
    return pod.spec.priority_class_name in CRITICAL


def _is_stuck(pod: Pod, now: datetime) -> bool:
    leaving = pod.metadata.deletion_timestamp
    return leaving is not None and now > leaving + timedelta(seconds=STUCK_SECONDS)


def _tolerates(toleration: Toleration) -> bool:
    """Whether a toleration covers `karpenter.sh/disrupted:NoSchedule`."""
    if toleration.effect not in {None, "NoSchedule"}:
        return False
    if toleration.operator == "Exists":
        return toleration.key in {None, "", labels.TAINT_DISRUPTED}
    return toleration.key == labels.TAINT_DISRUPTED and not toleration.value
