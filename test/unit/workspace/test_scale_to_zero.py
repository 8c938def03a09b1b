"""Scale to zero in virtual time: idleness, hand-over to the activator, restarts, limits, and the way back."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import Workspace, labels
from kaito.api.workspace import ScalingStatus
from kaito.runtime.kinds import EndpointSlice, Namespace, Pod, StatefulSet
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.meta import ObjectKey, ObjectMeta
from kaito.runtime.testing import builders
from kaito.workspace.activator_ports import PORT_COUNT, ActivatorPorts, NoFreePort
from kaito.workspace.activity import Activity, ActivityMonitor, PodActivity, parse_activity
from kaito.workspace.idleness import IdleDecision, IdleState, decide_idle
from kaito.workspace.main import workspace_manager

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

NAME = "workspace-phi-3-mini"
NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
POD_IP = "10.0.0.7"


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def decided(**changes: Any) -> IdleDecision:
    """Decides about a Workspace that has been idle for its 300 seconds, before the hand-over."""
    state: dict[str, Any] = {
        "now": NOW,
        "idle_seconds": 300,
        "scaling": ScalingStatus(last_activity_time=NOW - seconds(300), requests_seen="a"),
        "is_ready": True,
        "activity": seen(),
        "has_activator": True,
        "handed_over_at": None,
    }
    return decide_idle(IdleState(**{**state, **changes}))


def seen(**changes: Any) -> Activity:
    known: dict[str, Any] = {"requests_seen": "a", "is_running": False, "changed_at": None, "polled_at": NOW}
    return Activity(**{**known, **changes})


def test_the_activator_is_an_endpoint_before_the_copies_end() -> None:
    first = decided()
    assert (first.hand_over, first.scale_to_zero) == (True, False)
    early = decided(handed_over_at=NOW - seconds(9))
    assert (early.hand_over, early.scale_to_zero) == (True, False)
    old_poll = decided(handed_over_at=NOW - seconds(15), activity=seen(polled_at=NOW - seconds(6)))
    assert not old_poll.scale_to_zero, "the last poll is from before all nodes route to the activator"
    assert decided(handed_over_at=NOW - seconds(10)).scale_to_zero


@pytest.mark.parametrize(
    "changes",
    [
        {"activity": None},
        {"is_ready": False},
        {"has_activator": False},
        {"activity": seen(is_running=True)},
        {"activity": seen(requests_seen="b")},
        {"activity": seen(polled_at=NOW - seconds(21))},
        {"scaling": ScalingStatus(last_activity_time=NOW - seconds(299), requests_seen="a")},
        {"scaling": None},
    ],
)
def test_what_is_unknown_or_busy_is_not_scaled_to_zero(changes: dict[str, Any]) -> None:
    assert not decided(handed_over_at=NOW - seconds(60), **changes).scale_to_zero


def test_requests_during_a_restart_count_and_a_restart_alone_does_not() -> None:
    assert decided(activity=seen(requests_seen="b")).scaling.last_activity_time == NOW
    later = decided(activity=seen(requests_seen="b", changed_at=NOW - seconds(7)))
    assert later.scaling.last_activity_time == NOW - seconds(7)
    assert decided().scaling.last_activity_time == NOW - seconds(300)


def test_activity_at_a_time_of_a_clock_ahead_does_not_keep_the_copies() -> None:
    ahead = NOW + timedelta(days=1)
    recorded = decided(scaling=ScalingStatus(last_activity_time=ahead, requests_seen="a"))
    assert recorded.scaling.last_activity_time == NOW, "the idle time begins once more"
    assert decided(activity=seen(changed_at=ahead)).hand_over


def test_few_writes_while_requests_arrive_and_one_when_they_stop() -> None:
    def after(quiet: float, since: float) -> IdleDecision:
        scaling = ScalingStatus(last_activity_time=NOW - seconds(since), requests_seen="a")
        return decided(scaling=scaling, activity=seen(requests_seen="b", changed_at=NOW - seconds(quiet)))

    busy = after(quiet=5, since=100)
    assert busy.scaling.requests_seen == "a"
    assert busy.requeue_at == NOW + seconds(70), "when a quarter of the idle time is over"
    assert after(quiet=75, since=100).scaling.last_activity_time == NOW - seconds(75)
    assert after(quiet=5, since=300).scaling.last_activity_time == NOW - seconds(5)
    assert after(quiet=300, since=299).hand_over


def test_the_metrics_of_a_server_without_those_of_probes() -> None:
    body = (
        b'kaito_http_requests_total{code="200",route="/health"} 90.0\n'
        b'kaito_http_requests_total{code="200",route="/v1/chat/completions"} 3.0\n'
        b'kaito_http_requests_total{code="429",route="/chat"} 2.0\n'
        b"kaito_generation_in_flight 1.0\nkaito_generation_queue_length 2.0\n"
        b'vllm:num_requests_running{model_name="x"} 7.0\n'
    )
    assert parse_activity(body, NOW) == PodActivity(requests=5, running=3, polled_at=NOW)
    assert parse_activity(b"other_total 1\n", NOW) is None
    assert parse_activity(None, NOW) is None


@pytest.mark.parametrize("value", ["1e999", "-1e999", "1e300", "1.2.3"])
def test_metrics_with_a_value_that_is_no_count_are_unknown(value: str) -> None:
    """The program in the pod may be the user's, and its answer must not end the polls of other Workspaces."""
    body = f"kaito_generation_in_flight 1\nkaito_http_requests_total {value}\n".encode()
    assert parse_activity(body, NOW) is None


def test_ports_are_not_given_twice() -> None:
    ports = ActivatorPorts(20000)
    zero, one, two, three = (ObjectKey("a", name) for name in ("zero", "one", "two", "three"))
    assert ports.allocate(one, {zero: 20000}) == 20001
    assert ports.allocate(one, {zero: 20000}) == 20001
    assert ports.allocate(two, {zero: 20000}) == 20002
    assert ports.allocate(three, {zero: 20000, one: 20001}) == 20003
    ports.release(two)
    assert ports.allocate(two, {zero: 20000, one: 20001}) == 20002
    full = {ObjectKey("b", str(port)): port for port in range(20000, 20000 + PORT_COUNT)}
    with pytest.raises(NoFreePort, match="all 5000 ports from 20000"):
        ports.allocate(ObjectKey("a", "four"), full)


class Scene:
    """A cluster with an activator, and a Workspace whose pod reports requests."""

    def __init__(self, cluster: "Cluster", phi: Workspace) -> None:
        self.cluster, self.world = cluster, cluster.world
        self.requests = self.running = 0
        spec = {"replicas": 1, "autoscaling": {"minReplicas": 0, "idleSeconds": 300}}
        self.workspace = Workspace.model_validate(phi.to_dict() | {"spec": spec})

    async def fetch(self, _: str) -> bytes | None:
        text = f'kaito_http_requests_total{{code="200",route="/chat"}} {self.requests}\n'
        return f"{text}kaito_generation_in_flight {self.running}\n".encode()

    def controller(self) -> Manager:
        runtime = Settings(metrics_bind_address="0", health_probe_bind_address="0", leader_elect=False)
        manager = workspace_manager(
            self.cluster.settings,
            runtime,
            transport=self.world.transport(),
            clock=self.world.clock,
            activity=ActivityMonitor(self.fetch, self.world.clock),
        )
        self.world.track(manager)
        return manager

    def install_activator(self, *addresses: str) -> None:
        if self.world.find(Namespace, "kaito-system", "") is None:
            self.cluster.namespace("kaito-system")
        self.world.put(
            EndpointSlice.model_validate(
                {
                    "metadata": {
                        "name": "workspace-activator-x",
                        "namespace": "kaito-system",
                        "labels": {labels.ACTIVATOR: labels.ACTIVATOR_ADDRESS},
                    },
                    "addressType": "IPv4",
                    "endpoints": [{"addresses": [each], "conditions": {"ready": True}} for each in addresses],
                    "ports": [{"name": "health", "port": 8081, "protocol": "TCP"}],
                }
            )
        )

    async def serving(self) -> None:
        """Makes the copies ready."""
        await self.cluster.until_serving()
        owner = self.world.get(StatefulSet, NAME)
        node = f"node-{self.cluster.claims()[0].name}"
        pod = builders.pod(f"{NAME}-0", labels={labels.WORKSPACE: NAME}, node_name=node, owner=owner)
        self.world.put(pod)
        self.world.patch(Pod, pod.name, {"status": {"podIP": POD_IP}}, subresource="status")
        await self.world.settle()

    async def end_pod(self, manager: Manager) -> None:
        await manager.client.delete(self.world.get(Pod, f"{NAME}-0"), grace_seconds=0)
        self.cluster.serve()
        await self.world.settle()

    @property
    def replicas(self) -> int | None:
        return self.world.get(Workspace, NAME).spec.replicas

    @property
    def endpoints(self) -> list[str]:
        found = self.world.get(EndpointSlice, f"{NAME}-activator")
        return [endpoint.addresses[0] for endpoint in found.endpoints]


@pytest.fixture
def scene(cluster: "Cluster", phi: Workspace) -> Scene:
    return Scene(cluster, phi)


async def test_an_idle_workspace_is_handed_over_and_scaled_to_zero_and_back(scene: Scene) -> None:
    world = scene.world
    scene.install_activator("10.9.0.1", "10.9.0.2")
    world.put(scene.workspace)
    manager = scene.controller()
    async with manager:
        await world.advance(5)
        found = world.get(EndpointSlice, f"{NAME}-activator")
        assert (found.ports[0].name, found.ports[0].port, found.address_type) == ("http", 20000, "IPv4")
        assert found.labels["kubernetes.io/service-name"] == NAME
        assert found.labels["endpointslice.kubernetes.io/managed-by"] == "activator.kaito.sh"
        assert scene.endpoints == ["10.9.0.1", "10.9.0.2"], "requests are held while the first copy starts"
        await scene.serving()
        assert scene.endpoints == []

        written = len(world.requests)
        for _ in range(80):  # busy
            scene.requests += 1
            await world.advance(10)
        assert (scene.replicas, scene.endpoints) == (1, [])
        writes = [each for each in world.requests[written:] if each.verb == "patch"]
        assert len(writes) <= 3, "about one for each idle time"
        scene.running = 1  # a long request
        await world.advance(900)
        assert (scene.replicas, scene.endpoints) == (1, [])
        scene.running = 0
        await world.advance(290)
        assert (scene.replicas, scene.endpoints) == (1, [])
        await world.advance(25)
        assert scene.endpoints == ["10.9.0.1", "10.9.0.2"]
        await world.advance(30)
        assert scene.replicas == 0
        await scene.end_pod(manager)
        assert scene.cluster.claims() == []
        message = scene.cluster.conditions()["InferenceReady"][2]
        assert message == "no copies, because spec.replicas is 0; a request to its Service starts a copy"
        reasons = [event.reason for event in world.events(scene.cluster.workspace())]
        assert "Idle" in reasons

        world.scale(Workspace, NAME, 1)  # as the activator does
        await world.settle()
        assert scene.cluster.workspace().status.scaling is not None
        await world.advance(240)
        assert len(scene.cluster.claims()) == 1
        assert scene.endpoints == ["10.9.0.1", "10.9.0.2"]
        await scene.serving()
        assert scene.endpoints == []
        scaling = scene.cluster.workspace().status.scaling
        assert scaling is not None
        assert (scaling.woken_time, scaling.last_start_seconds) == (None, 240)
        assert world.get(EndpointSlice, f"{NAME}-activator").ports[0].port == 20000

        await world.advance(400)
        assert scene.replicas == 0
        await scene.end_pod(manager)
        message = scene.cluster.conditions()["InferenceReady"][2]
        assert message.endswith("a request to its Service starts a copy, which took 240 s the last time")
        world.scale(Workspace, NAME, 1)
        await world.settle()
        assert (
            "the last start from zero took 240 s: ready at about 20" in scene.cluster.conditions()["InferenceReady"][2]
        )


async def test_the_activator_stays_an_endpoint_while_the_last_copy_ends(scene: Scene) -> None:
    """The status of the StatefulSet counts the copy as ready until its pod has ended, up to 40 s."""
    world = scene.world
    scene.install_activator("10.9.0.1")
    world.put(scene.workspace)
    async with scene.controller() as manager:
        await world.advance(5)
        await scene.serving()
        await world.advance(360)
        assert (scene.replicas, scene.endpoints) == (0, ["10.9.0.1"])
        await manager.client.delete(world.get(Pod, f"{NAME}-0"), grace_seconds=40)
        await world.advance(35)
        assert world.get(StatefulSet, NAME).status.ready_replicas == 1
        assert scene.endpoints == ["10.9.0.1"]
        await scene.end_pod(manager)
        assert scene.endpoints == ["10.9.0.1"]


async def test_requests_are_held_while_the_only_copy_is_evicted(scene: Scene) -> None:
    world = scene.world
    scene.install_activator("10.9.0.1")
    world.put(scene.workspace)
    async with scene.controller() as manager:
        await world.advance(5)
        await scene.serving()
        assert scene.endpoints == []
        await manager.client.delete(world.get(Pod, f"{NAME}-0"), grace_seconds=40)
        await world.settle()
        assert world.get(StatefulSet, NAME).status.ready_replicas == 1
        assert scene.endpoints == ["10.9.0.1"]


async def test_a_request_during_the_hand_over_keeps_the_copies(scene: Scene) -> None:
    world = scene.world
    scene.install_activator("10.9.0.1")
    world.put(scene.workspace)
    async with scene.controller():
        await world.advance(5)
        await scene.serving()
        for _ in range(40):
            await world.advance(10)
            if scene.endpoints:
                break
        assert scene.endpoints == ["10.9.0.1"]
        scene.requests += 1
        await world.advance(15)
        assert scene.endpoints == []
        await world.advance(270)
        assert scene.replicas == 1
        await world.advance(60)
        assert scene.replicas == 0


async def test_restarts_neither_shorten_nor_extend_the_idle_time(scene: Scene) -> None:
    world = scene.world
    scene.install_activator("10.9.0.1")
    world.put(scene.workspace)
    async with scene.controller():
        await world.advance(5)
        await scene.serving()
        await world.advance(20)
    for _ in range(2):
        await world.advance(50)
        async with scene.controller():
            await world.advance(50)
    async with scene.controller():
        await world.advance(40)
        assert scene.replicas == 1
        await world.advance(100)
        assert scene.replicas == 0


async def test_requests_while_the_controller_was_down_count(scene: Scene) -> None:
    world = scene.world
    scene.install_activator("10.9.0.1")
    world.put(scene.workspace)
    async with scene.controller():
        await world.advance(5)
        await scene.serving()
        await world.advance(20)
    await world.advance(1000)
    scene.requests += 1
    async with scene.controller():
        await world.advance(290)
        assert scene.replicas == 1
        await world.advance(60)
        assert scene.replicas == 0


async def test_without_an_activator_an_idle_workspace_stays_and_says_why(scene: Scene) -> None:
    world = scene.world
    world.put(scene.workspace)
    async with scene.controller():
        await world.advance(5)
        await scene.serving()
        await world.advance(400)
        assert scene.replicas == 1
        message = scene.cluster.conditions()["WorkspaceReady"][2]
        assert message.endswith("warning: not scaled to zero, because no pod of the activator is ready")
        scene.install_activator("10.9.0.1")
        await world.advance(60)
        assert scene.replicas == 0


async def test_a_server_that_does_not_answer_is_not_scaled_to_zero(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(_: str) -> bytes | None:
        return None

    world = scene.world
    monkeypatch.setattr(scene, "fetch", nothing)
    scene.install_activator("10.9.0.1")
    world.put(scene.workspace)
    async with scene.controller():
        await world.advance(5)
        await scene.serving()
        await world.advance(3600)
        assert scene.replicas == 1


async def test_limits_and_the_end_of_autoscaling(scene: Scene) -> None:
    world = scene.world
    scene.install_activator("10.9.0.1")
    world.put(scene.workspace)
    async with scene.controller():
        await world.advance(5)
        world.patch(Workspace, NAME, {"spec": {"autoscaling": {"maxReplicas": 2}}})
        world.scale(Workspace, NAME, 5)
        await world.settle()
        assert scene.replicas == 2
        world.patch(Workspace, NAME, {"spec": {"autoscaling": {"minReplicas": 1, "idleSeconds": None}}})
        await world.settle()
        assert world.find(EndpointSlice, f"{NAME}-activator") is None
        assert scene.cluster.workspace().status.scaling is None
        world.scale(Workspace, NAME, 0)
        await world.settle()
        assert scene.replicas == 0, "by hand"


async def test_workspaces_have_different_ports(scene: Scene) -> None:
    world = scene.world
    scene.install_activator("10.9.0.1")
    for number in range(5):
        world.put(scene.workspace.evolve(metadata=ObjectMeta(name=f"w{number}", namespace="default")))
    async with scene.controller():
        await world.settle()
        ours = [each for each in world.list(EndpointSlice) if each.labels[labels.ACTIVATOR] == "workspace"]
        assert sorted(each.ports[0].port or 0 for each in ours) == [20000, 20001, 20002, 20003, 20004]
