"""Drains nodes by Karpenter's rules: selects the pods to evict, in which order, and when to delete them instead.

Pods are evicted in four waves: others, daemons, critical others, critical daemons. A wave starts when the previous one
has no pods left. Eviction respects disruption budgets. Shortly before the termination time pods are deleted instead,
with the remaining time as grace period.
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
"""Draining does not wait for a pod this long after its deletion was due: its kubelet does not respond."""

DEFAULT_GRACE_SECONDS = 30
CRITICAL = frozenset({"system-cluster-critical", "system-node-critical"})
TERMINAL = frozenset({"Succeeded", "Failed"})


async def pods_on(api: Api, node: Node) -> list[Pod]:
    """Lists the node's pods from the API server: draining is too rare to cache all pods of the cluster for it."""
    return await api.client.list(Pod, fields={"spec.nodeName": node.name})


def pods_to_drain(pods: Sequence[Pod], now: datetime) -> list[Pod]:
    """The pods that must terminate before the node is deleted."""
    return [pod for pod in pods if not _is_exempt(pod) and not _is_stuck(pod, now)]


def exempt_pods(pods: Sequence[Pod]) -> list[Pod]:
    """The pods that draining does not evict."""
    return [pod for pod in pods if _is_exempt(pod)]


def next_wave(pods: Sequence[Pod]) -> list[Pod]:
    """The pods of the first wave that has any."""
    waves: dict[tuple[bool, bool], list[Pod]] = {}
    for pod in pods:
        waves.setdefault((_is_critical(pod), _is_daemon(pod)), []).append(pod)
    return waves[min(waves)] if waves else []


async def evict(
    api: Api, node: Node, pods: Sequence[Pod], *, deadline: datetime | None, now: datetime, metrics: ProvisionerMetrics
) -> None:
    """Evicts the pods of a wave, or deletes those whose grace period would end after the deadline."""
    for pod in pods:
        try:
            await _evict_or_delete(api, pod, deadline=deadline, now=now)
        except TooManyRequests as error:
            metrics.evictions.labels("429").inc()
            api.event(node, "Warning", reasons.FAILED_DRAINING, f"pod {pod.key}: {error.message}", action="Drain")
        except ApiError as error:
            if isinstance(error, Conflict) or (isinstance(error, NotFound) and error.is_object):
                metrics.evictions.labels("gone").inc()
                continue
            metrics.evictions.labels(str(error.code)).inc()
            api.event(node, "Warning", reasons.FAILED_DRAINING, f"pod {pod.key}: {error.message}", action="Drain")
        else:
            metrics.evictions.labels("ok").inc()


async def _evict_or_delete(api: Api, pod: Pod, *, deadline: datetime | None, now: datetime) -> None:
    grace = pod.spec.termination_grace_period_seconds
    grace = DEFAULT_GRACE_SECONDS if grace is None else grace
    if deadline is not None and now >= deadline - timedelta(seconds=grace):
        remaining = max(int((deadline - now).total_seconds()), 0)
        deletion_time = pod.metadata.deletion_timestamp
        if deletion_time is None or deletion_time > deadline:
            await api.delete(pod, grace_seconds=remaining)
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
    deletion_time = pod.metadata.deletion_timestamp
    return deletion_time is not None and now > deletion_time + timedelta(seconds=STUCK_SECONDS)


def _tolerates(toleration: Toleration) -> bool:
    """Whether a toleration covers `karpenter.sh/disrupted:NoSchedule`."""
    if toleration.effect not in {None, "NoSchedule"}:
        return False
    if toleration.operator == "Exists":
        return toleration.key in {None, "", labels.TAINT_DISRUPTED}
    return toleration.key == labels.TAINT_DISRUPTED and not toleration.value
