"""The GPUs of the nodes as parts of the chain."""

from datetime import UTC, datetime
from typing import Any

import pytest

from kaito.api import Workspace
from kaito.console.views.gpus import gpu_links
from kaito.diagnosis import Link, Situation
from kaito.runtime.kinds import Node

NOW = datetime(2030, 1, 1, tzinfo=UTC)
WORKSPACE = Workspace.model_validate(
    {
        "metadata": {"name": "phi", "namespace": "default"},
        "resource": {"instanceType": "Standard_NC6s_v3", "count": 1, "labelSelector": {"matchLabels": {"a": "b"}}},
        "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}},
    }
)


def gpu(capacity: dict[str, str], allocatable: dict[str, str], ready: str = "True", **labels: str) -> Link:
    """The part of a node."""
    document: dict[str, Any] = {
        "metadata": {"name": "node", "labels": {name.replace("_", "/", 1): value for name, value in labels.items()}},
        "status": {
            "capacity": capacity,
            "allocatable": allocatable,
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2030-01-01T00:00:00Z"}],
        },
    }
    node = Node.model_validate(document)
    [found] = gpu_links(Situation(now=NOW, workspace=WORKSPACE, nodes=[node]))
    return found


def test_an_advertised_gpu_is_ok() -> None:
    found = gpu({"nvidia.com/gpu": "1"}, {"nvidia.com/gpu": "1"}, **{"nvidia.com_gpu.product": "Tesla-V100"})
    assert (found.state, found.name, found.summary) == ("ok", "node", "1 nvidia.com/gpu, Tesla-V100")


@pytest.mark.parametrize("resource", ["nvidia.com/mig-1g.10gb", "nvidia.com/gpu.shared"])
def test_a_part_of_a_gpu_with_a_resource_of_its_own_is_ok(resource: str) -> None:
    advertised = {"nvidia.com/gpu": "0", resource: "7"}
    found = gpu(advertised, advertised)
    assert (found.state, found.summary) == ("ok", f"7 {resource}")


@pytest.mark.parametrize("capacity", [{}, {"nvidia.com/gpu": "0"}])
def test_a_node_without_gpu_waits_for_the_device_plugin(capacity: dict[str, str]) -> None:
    found = gpu(capacity, capacity)
    assert (found.state, found.summary) == ("waiting", "the device plugin advertises none yet")


def test_a_gpu_that_is_not_allocatable_failed() -> None:
    found = gpu({"nvidia.com/gpu": "1"}, {"nvidia.com/gpu": "0"})
    assert (found.state, found.summary) == ("failed", "1 nvidia.com/gpu, none is allocatable")


def test_the_gpu_of_a_lost_node_is_unknown() -> None:
    found = gpu({"nvidia.com/gpu": "1"}, {"nvidia.com/gpu": "1"}, ready="Unknown")
    assert (found.state, found.summary) == ("unknown", "1 nvidia.com/gpu, the node does not report")


def test_a_missing_node_has_no_gpu_yet() -> None:
    [found] = gpu_links(Situation(now=NOW, workspace=WORKSPACE))
    assert (found.state, found.name) == ("absent", "")
