"""Claims of nodes whose GPUs are divided into slices: the agent pool, and when the node is initialized."""

from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import labels
from kaito.api.karpenter import conditions

if TYPE_CHECKING:
    from test.unit.provisioner.conftest import Stage

MIXED = "nvidia.com/mig-1g.10gb"


def divide(stage: "Stage", resource: str, amount: str, profile: str = "MIG1g") -> None:
    def change(document: dict[str, Any]) -> None:
        document["metadata"]["annotations"] = {labels.GPU_INSTANCE_PROFILE: profile}
        document["spec"]["resources"]["requests"][resource] = amount

    stage.put("ws1", change)


@pytest.mark.parametrize(("strategy", "resource"), [("single", labels.NVIDIA_GPU), ("mixed", MIXED)])
async def test_a_claim_with_a_profile_is_a_divided_pool(stage: "Stage", strategy: str, resource: str) -> None:
    stage.simulator.cluster.settings = stage.simulator.settings.model_copy(update={"mig_strategy": strategy})
    await stage.start()
    divide(stage, resource, "7")
    claim = await stage.until_ready()
    assert stage.pool().properties["gpuInstanceProfile"] == "MIG1g"
    assert int(claim.status.allocatable[resource]) == 7
    assert stage.node().labels[labels.INITIALIZED] == "true"


async def test_a_divided_node_is_initialized_with_its_last_slice(stage: "Stage") -> None:
    stage.simulator.knobs.set(gpu_count_override=6)
    await stage.start()
    divide(stage, labels.NVIDIA_GPU, "7")
    await stage.world.advance(600)
    found = stage.condition("initialized")
    assert found.reason == conditions.RESOURCE_NOT_REGISTERED
    assert found.message == 'Resource "nvidia.com/gpu": 6 of 7 slices of GPUs are registered (device plugin)'
    stage.simulator.knobs.set(gpu_count_override=7)
    await stage.until_ready()


async def test_slices_under_another_resource_are_not_those_of_the_claim(stage: "Stage") -> None:
    await stage.start()
    divide(stage, MIXED, "7")
    await stage.world.advance(600)
    found = stage.condition("initialized")
    assert found.reason == conditions.RESOURCE_NOT_REGISTERED
    assert found.message == f'Resource "{MIXED}" was requested but not registered'


async def test_an_unknown_profile_is_reported_and_creates_no_pool(stage: "Stage") -> None:
    await stage.start()
    divide(stage, labels.NVIDIA_GPU, "7", profile="1g.10gb")
    await stage.world.advance(60)
    found = stage.condition("launched")
    assert found.status == "False"
    assert f"annotation {labels.GPU_INSTANCE_PROFILE} is '1g.10gb'" in found.message
    assert stage.simulator.cluster.pools == {}
