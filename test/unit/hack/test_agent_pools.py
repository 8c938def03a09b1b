"""The real node of a cluster follows the simulated agent pools."""

from collections.abc import AsyncIterator

import pytest

from hack.cluster.agent_pools import PoolNode, node_options
from hack.cluster.node import NodeOptions
from hack.cluster.processes import StartFailed
from kaito.cloud.azure.simulator import SimulatorSettings
from kaito.cloud.azure.simulator.catalog import Catalog
from kaito.cloud.azure.simulator.pools import Pool
from kaito.runtime.tasks import TaskScope

SETTINGS = SimulatorSettings()
PROPERTIES = {"nodeLabels": {"apps": "phi-3"}, "nodeTaints": ["sku=gpu:NoSchedule"]}


def pool(name: str) -> Pool:
    size = Catalog.default().find("Standard_NC6s_v3")
    assert size is not None
    return Pool(name, size, dict(PROPERTIES), uid=name)


class Recorder:
    """Records what happens to the real node."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails = False

    def join(self, options: NodeOptions, gpus: int) -> None:
        self.calls.append(f"join {options.name} {gpus}")
        if self.fails:
            raise StartFailed("kubelet ended")

    def leave(self, name: str) -> None:
        self.calls.append(f"leave {name}")


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def node(recorder: Recorder) -> AsyncIterator[PoolNode]:
    found = PoolNode(recorder, SETTINGS)
    async with TaskScope("agent-pools") as scope:
        scope.spawn(found.run(), name="follower")
        yield found


def test_kubelet_gets_the_identity_of_the_first_instance() -> None:
    options = node_options(pool("ws1"), SETTINGS)
    assert options.name.startswith("aks-ws1-")
    assert options.name.endswith("-vmss000000")
    assert options.taints == ("sku=gpu:NoSchedule",)
    assert options.labels.items() >= {"apps": "phi-3", "agentpool": "ws1"}.items()
    assert options.labels["node.kubernetes.io/instance-type"] == "Standard_NC6s_v3"
    assert options.provider_id.startswith("azure:///subscriptions/")
    assert options.provider_id.endswith("-vmss/virtualMachines/0")
    # kubelet refuses to start with labels in kubernetes.io that it does not know, and sets these itself.
    assert not {"kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch"} & options.labels.keys()


async def test_node_joins_with_a_provisioned_pool_and_leaves_with_a_deleted_one(
    node: PoolNode, recorder: Recorder
) -> None:
    first = pool("ws1")
    name = node_options(first, SETTINGS).name
    for event in ("creating", "provisioned", "provisioned", "deleting"):
        node.on_event(event, first)
    await node.idle()
    assert recorder.calls == [f"join {name} 1"]
    node.on_event("deleted", first)
    await node.idle()
    assert recorder.calls == [f"join {name} 1", f"leave {name}"]


async def test_pool_gets_no_node_while_another_one_has_it(node: PoolNode, recorder: Recorder) -> None:
    first, second, third = pool("ws1"), pool("ws2"), pool("ws3")
    node.on_event("provisioned", first)
    node.on_event("provisioned", second)
    node.on_event("deleted", second)
    node.on_event("deleted", first)
    node.on_event("provisioned", third)
    await node.idle()
    kinds = [call.split("-")[0] + " " + call.split("-")[1] for call in recorder.calls]
    assert kinds == ["join aks ws1", "leave aks ws1", "join aks ws3"]


async def test_node_that_does_not_start_leaves_with_its_pool(node: PoolNode, recorder: Recorder) -> None:
    recorder.fails = True
    first = pool("ws1")
    node.on_event("provisioned", first)
    node.on_event("deleted", first)
    await node.idle()
    assert [call.split()[0] for call in recorder.calls] == ["join", "leave"]
