"""Selects the pods whose load counts: one of each copy of a model."""

from collections.abc import Sequence

from kaito.api import labels
from kaito.runtime.kinds import Pod


def ready_copies(pods: Sequence[Pod]) -> list[Pod]:
    """Returns the ready pods that answer requests, without the workers of copies on several nodes."""
    return [
        pod
        for pod in pods
        if pod.is_ready and not pod.deleting and pod.labels.get(labels.GROUP_ROLE, labels.LEADER) == labels.LEADER
    ]
