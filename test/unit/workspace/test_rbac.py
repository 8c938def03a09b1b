"""The role in `config/rbac` permits everything that the controller does, including rare requests."""

from pathlib import Path
from typing import TYPE_CHECKING

from kaito.api import Workspace
from kaito.runtime.kinds import EndpointSlice, Event, Pod, StatefulSet
from kaito.runtime.manager import Settings
from kaito.workspace import in_use_policy as guard
from kaito.workspace.main import workspace_manager
from test.unit.workspace.test_pod_events import put_pod, revisions
from test.unit.workspace.test_replacement import QUOTA, tell

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

ROLES = Path(__file__).resolve().parents[3] / "config" / "rbac" / "workspace-controller.yaml"
USER = "system:serviceaccount:kaito-system:workspace-controller"


async def test_the_role_suffices_for_losses_blocked_pods_the_guard_and_deletion(
    cluster: "Cluster", phi: Workspace
) -> None:
    world = cluster.world
    cluster.namespace("kaito-system")
    world.apply(ROLES)
    runtime = Settings(metrics_bind_address="0", health_probe_bind_address="0", leader_elect=False)
    manager = workspace_manager(
        cluster.settings, runtime, transport=world.transport(user=USER, agent="controller"), clock=world.clock
    )
    world.track(manager)
    cluster.apply(phi)
    async with manager:
        await world.settle()
        lost = cluster.claim()
        tell(cluster, lost, "InsufficientCapacityError", QUOTA)
        world.delete(cluster.kind, lost.name)
        await world.advance(35)
        await cluster.until_serving()
        workload = world.get(StatefulSet, phi.name)
        put_pod(cluster, workload, f"{phi.name}-0", revision="old")
        revisions(cluster, workload, "new")
        await world.advance(65)
        assert world.get(Pod, f"{phi.name}-0").deleting
        assert world.find(guard.ValidatingAdmissionPolicyBinding, guard.POLICY_NAME, "") is not None
        world.delete(Workspace, phi.name)
        await world.advance(30)
        assert world.find(Workspace, phi.name) is None
        assert world.find(guard.ValidatingAdmissionPolicyBinding, guard.POLICY_NAME, "") is None
    assert world.count("list", Event) > 0
    denied = [f"{r.method} {r.path}" for r in world.requests if r.status == 403]
    assert denied == []


async def test_the_role_suffices_for_scaling_to_zero_and_for_the_limits(cluster: "Cluster", phi: Workspace) -> None:
    world = cluster.world
    cluster.namespace("kaito-system")
    world.apply(ROLES)
    runtime = Settings(metrics_bind_address="0", health_probe_bind_address="0", leader_elect=False)
    transport = world.transport(user=USER, agent="controller")
    manager = workspace_manager(cluster.settings, runtime, mirrors_count=True, transport=transport, clock=world.clock)
    world.track(manager)
    autoscaling = {"minReplicas": 0, "maxReplicas": 2}
    cluster.apply(Workspace.model_validate(phi.to_dict() | {"spec": {"autoscaling": autoscaling}}))
    async with manager:
        await world.settle()
        assert world.get(Workspace, phi.name).spec.replicas == 1
        assert world.find(EndpointSlice, f"{phi.name}-activator") is not None
        world.scale(Workspace, phi.name, 5)
        await world.settle()
        assert world.get(Workspace, phi.name).spec.replicas == 2
        world.patch(Workspace, phi.name, {"spec": {"autoscaling": {"minReplicas": 1}}})
        await world.settle()
        assert world.find(EndpointSlice, f"{phi.name}-activator") is None
    denied = [f"{r.method} {r.path}" for r in world.requests if r.status == 403]
    assert denied == []
