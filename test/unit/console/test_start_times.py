"""The time until a planned Workspace is ready, from what others of the cluster took."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kaito.api import Machine, labels
from kaito.console.views.start_times import time_to_ready
from kaito.runtime.kinds import Pod
from kaito.runtime.meta import format_time

AT = datetime(2030, 1, 1, tzinfo=UTC)


def condition(kind: str, seconds: float, status: str = "True", start: datetime = AT) -> dict[str, Any]:
    at = format_time(start + timedelta(seconds=seconds))
    return {"type": kind, "status": status, "reason": "", "lastTransitionTime": at}


def claim(seconds: float, status: str = "True", *, start: datetime = AT, size: str = "") -> Machine:
    conditions = [condition("MachineInitialized", seconds, status, start), condition("Ready", 9000, start=start)]
    requirement = {"key": labels.INSTANCE_TYPE, "operator": "In", "values": [size]}
    document: dict[str, Any] = {
        "metadata": {"name": "m", "creationTimestamp": format_time(start)},
        "spec": {"requirements": [requirement] if size else []},
        "status": {"conditions": conditions},
    }
    return Machine.model_validate(document)


def pod(seconds: float, status: str = "True", *, restarts: int = 0, of: str = "") -> Pod:
    container = {"name": "server", "image": "i"}
    statuses = [container | {"imageID": "", "ready": True, "restartCount": restarts}]
    conditions = [condition("PodScheduled", 10), condition("Ready", 10 + seconds, status)]
    document: dict[str, Any] = {
        "metadata": {"name": "p", "namespace": "default", "labels": {labels.WORKSPACE: of}},
        "spec": {"containers": [container]},
        "status": {"conditions": conditions, "containerStatuses": statuses},
    }
    return Pod.model_validate(document)


def test_the_parts_are_medians_and_the_whole_is_their_sum() -> None:
    found = time_to_ready([claim(100), claim(300), claim(140)], [pod(60), pod(80)], buys_nodes=True)
    parts = [{"label": "node", "seconds": 140}, {"label": "server", "seconds": 70}]
    assert found == {"seconds": 210, "parts": parts}


def test_existing_nodes_take_no_time() -> None:
    found = time_to_ready([claim(100)], [pod(60)], buys_nodes=False)
    assert found == {"seconds": 60, "parts": [{"label": "server", "seconds": 60}]}


@pytest.mark.parametrize(
    ("claims", "pods"),
    [
        ([], [pod(60)]),
        ([claim(100)], []),
        ([claim(100, "False")], [pod(60)]),
        ([claim(-5)], [pod(60)]),  # clocks that differ
        ([claim(100)], [pod(60, "False")]),
        ([claim(100)], [pod(60, restarts=1)]),
    ],
)
def test_what_was_not_seen_is_unknown(claims: Sequence[Machine], pods: Sequence[Pod]) -> None:
    assert time_to_ready(claims, pods, buys_nodes=True) is None
