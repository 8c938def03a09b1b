"""The trouble buttons of `kaito up` change the simulated cloud and the processes of pods."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from kaito.cloud.azure.simulator import Simulator, SimulatorSettings
from kaito.cloud.azure.simulator.server import serve
from kaito.console.trouble import TroubleFailed
from kaito.local.trouble import BUTTONS, LocalTrouble
from kaito.runtime.kinds import Node


@dataclass
class FakeKubelet:
    """Counts what is killed."""

    killed: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def kill(self, namespace: str, pod: str) -> int:
        self.killed.append((namespace, pod))
        return 1 if pod == "phi-0" else 0


class FakeApi:
    """Has one node of the pool ws1."""

    async def find(self, kind: type[Node], name: str) -> Node | None:
        labels = {"agentpool": "ws1"} if name == "node-1" else {}
        return kind.model_validate({"metadata": {"name": name, "labels": labels}}) if name != "absent" else None


@dataclass
class Scene:
    simulator: Simulator
    kubelet: FakeKubelet
    trouble: LocalTrouble


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    simulator, kubelet = Simulator(SimulatorSettings()), FakeKubelet()
    parts: Any = (kubelet, FakeApi())
    async with simulator, serve(simulator) as url:
        simulator.cluster.put("ws1", {"properties": {"vmSize": "Standard_NC24ads_A100_v4", "count": 1}})
        yield Scene(simulator, kubelet, LocalTrouble(url, *parts))


@pytest.mark.parametrize(("button", "fault"), [("quota", "quota"), ("stock-out", "capacity")])
async def test_faults_of_the_cloud_last_until_it_recovers(scene: Scene, button: str, fault: str) -> None:
    await scene.trouble.cause(button, "")
    assert [(each.name, each.times) for each in scene.simulator.faults.active()] == [(fault, None)]
    await scene.trouble.cause("recovery", "")
    assert scene.simulator.faults.active() == []


async def test_a_lost_node_reports_again_after_recovery(scene: Scene) -> None:
    await scene.trouble.cause("node-lost", "node-1")
    assert scene.simulator.knobs.of("ws1").heartbeat_stop
    assert not scene.simulator.knobs.of("ws2").heartbeat_stop
    await scene.trouble.cause("recovery", "")
    assert not scene.simulator.knobs.of("ws1").heartbeat_stop


async def test_an_eviction_deletes_the_pool(scene: Scene) -> None:
    await scene.trouble.cause("eviction", "node-1")
    assert scene.simulator.cluster.pools["ws1"].state == "Deleting"


async def test_a_pod_is_killed(scene: Scene) -> None:
    assert await scene.trouble.cause("pod-killed", "default/phi-0") == "1 process of pod default/phi-0 killed"
    assert scene.kubelet.killed == [("default", "phi-0")]


@pytest.mark.parametrize(
    ("button", "target"),
    [("pod-killed", "default/other"), ("pod-killed", ""), ("eviction", "absent"), ("node-lost", "foreign")],
)
async def test_a_target_that_does_not_exist_is_refused(scene: Scene, button: str, target: str) -> None:
    with pytest.raises(TroubleFailed, match="choose"):
        await scene.trouble.cause(button, target)


async def test_the_quota_of_pools_is_read(scene: Scene) -> None:
    found = await scene.trouble.read_quota()
    assert found is not None
    used = {each.family: each.used for each in found}
    assert used == {"cores": 24, "StandardNCADSA100v4Family": 24}
    assert await LocalTrouble("http://127.0.0.1:9", scene.trouble.kubelet, scene.trouble.api).read_quota() is None


async def test_each_button_has_an_action(scene: Scene) -> None:
    targets = {"none": "", "node": "node-1", "pod": "default/phi-0", "workspace": "default/phi"}
    for button in BUTTONS:
        assert await scene.trouble.cause(button.id, targets[button.target])
