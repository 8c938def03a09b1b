"""The activator in a cluster: listeners, waking, forecasts, and the permissions of its role."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from kaito.api import Workspace, labels
from kaito.api.workspace import ScalingStatus
from kaito.runtime.errors import Forbidden
from kaito.runtime.kinds import EndpointSlice, Pod
from kaito.runtime.manager import Settings
from kaito.runtime.meta import ObjectKey
from kaito.runtime.testing import World, builders
from kaito.workspace.activator.gate import Gate, Held, HoldLimits, NotReadyInTime, Removed, TooManyHeld
from kaito.workspace.activator.listeners import ActivatorServer, Listeners, cached_kinds, listener_controller
from kaito.workspace.activator.main import ActivatorSettings, activator_manager, parser
from kaito.workspace.activator.metrics import ActivatorMetrics
from kaito.workspace.activator.workspaces import HeldWorkspaces, ready_in_seconds
from kaito.workspace.manifests.activator import activator_slice

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

NAME = "workspace-phi-3-mini"
KEY = ObjectKey("default", NAME)
ROLE = Path(__file__).resolve().parents[3] / "config" / "components" / "activator" / "rbac.yaml"


class Ports:
    """Stands in for the sockets of the server."""

    name = "ports"

    def __init__(self) -> None:
        self.ports: frozenset[int] = frozenset()

    async def listen(self, port: int) -> None:
        self.ports |= {port}

    async def close(self, port: int) -> None:
        self.ports -= {port}


class Scene:
    """An activator without sockets, in a cluster with a Workspace that scales to zero."""

    def __init__(self, cluster: "Cluster", phi: Workspace) -> None:
        self.world: World = cluster.world
        self.workspaces, self.metrics, self.server = HeldWorkspaces(), ActivatorMetrics(), Ports()
        server: Any = self.server
        self.listeners = Listeners(server, self.workspaces, self.metrics)
        spec = {"replicas": 0, "autoscaling": {"minReplicas": 0}}
        self.workspace = self.world.put(Workspace.model_validate(phi.to_dict() | {"spec": spec}))
        self.slice = self.world.put(
            activator_slice(self.workspace, port=20007, family="IPv4", addresses=[], since=None)
        )

    def manager(self, user: str = "") -> Any:
        return self.world.manager(listener_controller(self.listeners), cache=cached_kinds(), user=user)

    def start_copy(self) -> None:
        pod = builders.pod(f"{NAME}-0", labels={labels.WORKSPACE: NAME}, node_name="node")
        self.world.put(pod)
        self.world.patch(Pod, pod.name, {"status": {"podIP": "10.0.0.7"}}, subresource="status")


@pytest.fixture
def scene(cluster: "Cluster", phi: Workspace) -> Scene:
    return Scene(cluster, phi)


async def test_a_held_request_wakes_the_workspace_once_and_is_released_by_the_pod(scene: Scene) -> None:
    world, registry = scene.world, CollectorRegistry()
    scene.metrics.register(registry)
    async with scene.manager():
        await world.settle()
        assert scene.server.ports == {20007}
        held = scene.workspaces.resolve(20007)
        assert held is not None
        until = asyncio.get_running_loop().time() + 600
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(held.gate.wait(until)) for _ in range(3)]
            await world.advance(60)
            assert world.get(Workspace, NAME).spec.replicas == 1
            assert registry.get_sample_value("kaito_activator_wake_ups_total", {"result": "success"}) == 1
            world.scale(Workspace, NAME, 0)  # the controller decided at the same time
            await world.advance(10)
            assert world.get(Workspace, NAME).spec.replicas == 1
            scene.start_copy()
            await world.settle()
        assert [task.result() for task in waiting] == ["10.0.0.7"] * 3


async def test_a_workspace_that_does_not_scale_to_zero_is_not_woken(scene: Scene) -> None:
    world = scene.world
    world.patch(Workspace, NAME, {"spec": {"autoscaling": {"minReplicas": 1}}})
    async with scene.manager():
        await world.settle()
        held = scene.workspaces.resolve(20007)
        assert held is not None
        with pytest.raises(NotReadyInTime):
            await held.gate.wait(asyncio.get_running_loop().time() + 30)
        assert world.get(Workspace, NAME).spec.replicas == 0


async def test_a_listener_ends_with_its_slice(scene: Scene) -> None:
    world = scene.world
    async with scene.manager() as manager:
        await world.settle()
        assert scene.listeners.problem([scene.slice]) is None
        other = scene.slice.with_metadata(
            name="other-activator", labels={**scene.slice.labels, labels.SERVICE_NAME: "o"}
        )
        other = other.evolve(ports=[{"name": "http", "port": 20008, "protocol": "TCP"}])
        assert scene.listeners.problem([scene.slice, other]) == "no listener on port 20008"
        world.delete(EndpointSlice, scene.slice.name)
        await world.settle()
        await scene.listeners.remove_others(await manager.api.list(EndpointSlice))
        assert (scene.server.ports, scene.workspaces.resolve(20007)) == (frozenset(), None)


async def test_the_port_of_a_deleted_workspace_leads_to_its_next_owner_at_once(scene: Scene, phi: Workspace) -> None:
    world = scene.world
    async with scene.manager():
        await world.settle()
        former = scene.workspaces.resolve(20007)
        assert former is not None
        async with asyncio.TaskGroup() as tasks:
            request = tasks.create_task(_outcome(former.gate, 600))
            await world.settle()
            world.delete(EndpointSlice, scene.slice.name)
            other = world.put(phi.with_metadata(name="other"))
            world.put(activator_slice(other, port=20007, family="IPv4", addresses=[], since=None))
            began = world.now
            await world.settle()
            held = scene.workspaces.resolve(20007)
            assert held is not None
            assert held.key.name == "other"
            assert (await request, world.now) == (Removed, began), "the client may try again"


async def test_requests_to_a_workspace_without_its_slice_end_at_once(scene: Scene) -> None:
    world = scene.world
    async with scene.manager():
        await world.settle()
        held = scene.workspaces.resolve(20007)
        assert held is not None
        async with asyncio.TaskGroup() as tasks:
            request = tasks.create_task(_outcome(held.gate, 600))
            await world.settle()
            await scene.listeners.remove_others([])
            assert await request is Removed


async def test_the_forecast_follows_the_clock_without_an_event(scene: Scene) -> None:
    world = scene.world
    scaling = {"scaling": {"lastStartSeconds": 300, "wokenTime": f"{world.now:%Y-%m-%dT%H:%M:%SZ}"}}
    world.patch(Workspace, NAME, {"status": scaling}, subresource="status")
    async with scene.manager():
        await world.settle()
        held = scene.workspaces.resolve(20007)
        assert held is not None
        before = held.forecast().ready_in_seconds
        await world.advance(100)
        after = held.forecast().ready_in_seconds
        assert before is not None
        assert after == before - 100


async def _outcome(gate: Gate, seconds: float) -> object:
    """Waits for a copy; returns its address, or the class of the error."""
    try:
        return await gate.wait(asyncio.get_running_loop().time() + seconds)
    except (NotReadyInTime, Removed) as error:
        return type(error)


async def test_the_role_permits_what_the_activator_does(scene: Scene, cluster: "Cluster") -> None:
    world = scene.world
    cluster.namespace("kaito-system")
    for document in yaml.safe_load_all(ROLE.read_text()):
        world.apply(document, namespace="kaito-system")
    async with scene.manager(user="system:serviceaccount:kaito-system:workspace-activator") as manager:
        await world.settle()
        held = scene.workspaces.resolve(20007)
        assert held is not None
        with pytest.raises(NotReadyInTime):
            await held.gate.wait(asyncio.get_running_loop().time() + 10)
        assert world.get(Workspace, NAME).spec.replicas == 1
        with pytest.raises(Forbidden):
            await manager.api.delete(scene.workspace)


async def test_the_forecast_is_the_last_start_less_the_time_since_the_wake_up(phi: Workspace, world: World) -> None:
    now = world.now
    assert ready_in_seconds(phi, now) is None

    def of(**scaling: Any) -> float | None:
        status = phi.status.evolve(scaling=ScalingStatus(**scaling))
        return ready_in_seconds(phi.evolve(status=status), now)

    assert of(last_start_seconds=300) == 300
    assert of(last_start_seconds=300, woken_time=now - timedelta(seconds=100)) == 200
    assert of(last_start_seconds=300, woken_time=now - timedelta(seconds=400)) == 5


async def test_limits_count_what_is_held_and_nothing_else() -> None:
    held = Held(HoldLimits(requests=2, body_bytes=10))
    with held.hold(4):
        with pytest.raises(TooManyHeld), held.hold(7):
            pass
        with held.hold(6), pytest.raises(TooManyHeld), held.hold(0):
            pass
    assert (held.requests, held.body_bytes) == (0, 0)


async def test_a_copy_that_failed_is_avoided_until_the_copies_change(world: World) -> None:
    async def nothing() -> None:
        return

    gate = Gate(nothing)
    gate.update(["a", "b"])
    until = asyncio.get_running_loop().time() + 60
    assert {await gate.wait(until, avoid="a") for _ in range(4)} == {"b"}
    assert {await gate.wait(until) for _ in range(4)} == {"a", "b"}
    gate.update(["a"])
    began = world.now
    assert await gate.wait(until, avoid="a") == "a"
    assert (world.now - began).total_seconds() == 5


def test_the_flags_become_settings_and_the_manager_has_no_lease() -> None:
    flags = parser()
    args = flags.parse_args(["--hold=90s", "--hold-mebibytes=1", "--max-request-mebibytes=2", "--listen-address=::1"])
    settings = flags.settings(ActivatorSettings, args)
    assert settings.limits == HoldLimits(requests=1000, body_bytes=2**20, seconds=90)
    manager = activator_manager(settings, Settings(leader_elect=True))
    assert (manager.settings.leader_elect, manager.settings.graceful_shutdown_seconds) == (False, 120)
    with pytest.raises(SystemExit):
        parser().parse_args(["--leader-elect=true"])


def test_the_server_has_the_form_of_a_runnable() -> None:
    assert (ActivatorServer.name, ActivatorServer.leader_elected) == ("activator-server", False)
