"""How long a planned Workspace is expected to take until it is ready, from what others of the cluster took."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from statistics import median

from kaito.api import Claim
from kaito.console.views.json_values import Json
from kaito.runtime.kinds import Pod


def time_to_ready(claims: Sequence[Claim], pods: Sequence[Pod], *, buys_nodes: bool) -> Json | None:
    """Returns the median times of nodes and servers; None if one of them is unknown.

    Args:
        claims: claims of the planned instance type.
        pods: pods that serve the planned model.
        buys_nodes: whether the plan needs new nodes.
    """
    nodes, servers = list(_node_seconds(claims)), list(_server_seconds(pods))
    if not servers or (buys_nodes and not nodes):
        return None
    parts = {"node": median(nodes)} if buys_nodes else {}
    parts["server"] = median(servers)
    return {
        "seconds": round(sum(parts.values())),
        "parts": [{"label": label, "seconds": round(seconds)} for label, seconds in parts.items()],
    }


def _node_seconds(claims: Sequence[Claim]) -> Iterator[float]:
    """Yields the time from each claim to its node with GPUs. `Ready` changes later; this stage does not."""
    for claim in claims:
        reached = claim.condition(claim.stages.initialized)
        if reached is not None and reached.is_true:
            yield from _between(claim.metadata.creation_timestamp, reached.last_transition_time)


def _server_seconds(pods: Sequence[Pod]) -> Iterator[float]:
    """Yields the time from the placement of each pod to its first answer; those that restarted say nothing about it."""
    for pod in pods:
        placed, answers = pod.condition("PodScheduled"), pod.condition("Ready")
        restarts = sum(status.restart_count for status in pod.status.container_statuses)
        if placed is not None and answers is not None and answers.status == "True" and not restarts:
            yield from _between(placed.last_transition_time, answers.last_transition_time)


def _between(start: datetime | None, end: datetime | None) -> Iterator[float]:
    if start is not None and end is not None and end >= start:
        yield (end - start).total_seconds()
