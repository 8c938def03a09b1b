"""While Workspaces or claims exist, the installation cannot be deleted."""

from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import Workspace, labels
from kaito.runtime.errors import Forbidden, Invalid
from kaito.runtime.kinds import ConfigMap, Namespace
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.testing import World
from kaito.workspace import in_use_policy as guard
from kaito.workspace.settings import NodeApi, WorkspaceSettings

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster


MARK = {labels.INSTALLATION: labels.TRUE}


def installed(world: World) -> None:
    """Objects as `config/default` makes them, and one that it does not."""
    mark = {labels.INSTALLATION: labels.TRUE}
    world.put(Namespace(metadata=ObjectMeta(name="kaito-system", labels=mark)))
    world.put(ConfigMap(metadata=ObjectMeta(name="gpu-provisioner-azure", namespace="kaito-system", labels=mark)))
    world.put(ConfigMap(metadata=ObjectMeta(name="other", namespace="kaito-system")))


def in_force(world: World) -> bool:
    return world.find(guard.ValidatingAdmissionPolicyBinding, guard.POLICY_NAME, "") is not None


async def test_the_policy_exists_while_workspaces_or_claims_exist(cluster: "Cluster", phi: Workspace) -> None:
    installed(cluster.world)
    async with cluster.controller():
        await cluster.world.advance(5)
        assert not in_force(cluster.world)
        cluster.apply(phi)
        await cluster.until_serving()
        await cluster.world.advance(5)
        assert in_force(cluster.world)
        claim = cluster.claim()
        cluster.world.patch(cluster.kind, claim.name, {"metadata": {"finalizers": [labels.TERMINATION_FINALIZER]}})
        cluster.world.patch(Workspace, phi.name, {"metadata": {"finalizers": []}})
        cluster.world.delete(Workspace, phi.name)
        await cluster.world.advance(5)
        assert in_force(cluster.world), "a claim without its Workspace costs money, too"
        cluster.world.delete(cluster.kind, claim.name)
        cluster.world.patch(cluster.kind, claim.name, {"metadata": {"finalizers": []}})
        await cluster.world.advance(5)
        assert not in_force(cluster.world)
        assert cluster.world.find(guard.ValidatingAdmissionPolicy, guard.POLICY_NAME, "") is None


async def test_only_objects_of_the_installation_are_protected(cluster: "Cluster", phi: Workspace) -> None:
    world = cluster.world
    installed(world)
    cluster.apply(phi)
    async with cluster.controller():
        await world.advance(5)
        with pytest.raises(Forbidden, match="Delete them first"):
            world.delete(Namespace, "kaito-system", "")
        with pytest.raises(Forbidden, match="kubectl delete inferencesets,workspaces --all"):
            world.delete(ConfigMap, "gpu-provisioner-azure", "kaito-system")
        world.delete(ConfigMap, "other", "kaito-system")
    with pytest.raises(Forbidden):
        world.delete(Namespace, "kaito-system", "")  # without any controller, too
    async with cluster.controller():
        world.delete(Workspace, phi.name)
        await world.advance(10)
        world.delete(ConfigMap, "gpu-provisioner-azure", "kaito-system")


async def test_a_user_cannot_protect_objects_of_another_namespace(cluster: "Cluster", phi: Workspace) -> None:
    """Else, not even a kubelet could delete a pod that a user has labeled."""
    mark = {labels.INSTALLATION: labels.TRUE}
    installed(cluster.world)
    cluster.world.put(ConfigMap(metadata=ObjectMeta(name="of-a-user", namespace="default", labels=mark)))
    cluster.apply(phi.with_metadata(labels=mark))
    async with cluster.controller():
        await cluster.world.advance(5)
        assert in_force(cluster.world)
        cluster.world.delete(ConfigMap, "of-a-user")
        cluster.world.delete(Workspace, phi.name)
        await cluster.world.advance(10)
        assert cluster.world.find(Workspace, phi.name) is None


async def test_a_selector_with_the_label_of_the_installation_is_rejected(cluster: "Cluster", phi: Workspace) -> None:
    """The claim, and with it the node, could not be deleted."""
    selector = phi.resource.label_selector.evolve(match_labels={"apps": "phi", labels.INSTALLATION: labels.TRUE})
    with pytest.raises(Invalid, match="reserved for the controllers"):
        cluster.apply(phi.evolve(resource=phi.resource.evolve(label_selector=selector)))


async def test_a_policy_deleted_by_a_user_is_created_again(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.world.advance(5)
        cluster.world.delete(guard.ValidatingAdmissionPolicyBinding, guard.POLICY_NAME, "")
        await cluster.world.advance(301)
        assert in_force(cluster.world)
        cluster.world.clear_requests()
        await cluster.world.advance(3000)
        written = [r for r in cluster.world.requests if r.method != "GET" and "admissionpolic" in r.path]
        assert written == []


async def test_own_nodes_are_guarded_too(world: World, phi: Workspace) -> None:
    """Without claims nothing is paid, but Workspace and CRD would wait for a finalizer without a controller."""
    from test.unit.workspace.conftest import Cluster

    cluster = Cluster(world, WorkspaceSettings(node_api=NodeApi.BYO))
    cluster.apply(phi.evolve(resource=phi.resource.evolve(instance_type="")))
    async with cluster.controller():
        await world.advance(5)
        assert in_force(world)


@pytest.mark.parametrize("trouble", [{"status": 404}, {"status": 403}, {"status": 500}])
async def test_a_cluster_without_such_policies_works_without_a_guard(
    cluster: "Cluster", phi: Workspace, trouble: dict[str, Any]
) -> None:
    """Kubernetes before 1.30, or a role that lacks the right."""
    for kind in guard.POLICY_KINDS:
        cluster.world.fail_next("", kind, times=None, message="no such resource", **trouble)
    cluster.apply(phi)
    async with cluster.controller():
        await cluster.until_serving()
        await cluster.world.advance(60)
        assert cluster.columns() == ("True", "True", "True")
        assert not in_force(cluster.world)


async def test_the_guard_can_be_switched_off(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    off = cluster.settings.model_copy(update={"installation_guard": False})
    async with cluster.controller(off):
        await cluster.world.advance(30)
        assert not in_force(cluster.world)


@pytest.mark.parametrize(
    ("marks", "warnings"),
    [
        ({}, 1),
        ({labels.INSTALLATION: "false"}, 1),
        ({labels.INSTALLATION: "True"}, 1),  # the policy compares exactly
        ({labels.INSTALLATION: labels.TRUE}, 0),
    ],
)
async def test_a_namespace_that_is_not_protected_is_named_once(
    cluster: "Cluster", phi: Workspace, capsys: pytest.CaptureFixture[str], marks: dict[str, str], warnings: int
) -> None:
    cluster.world.put(Namespace(metadata=ObjectMeta(name="kaito-system", labels=marks)))
    cluster.apply(phi)
    async with cluster.controller(cluster.settings.model_copy(update={"namespace": "kaito-system"})):
        await cluster.world.advance(2 * guard.RESYNC_SECONDS)
        assert in_force(cluster.world)
        cluster.world.put(ConfigMap(metadata=ObjectMeta(name="ours", namespace="kaito-system", labels=MARK)))
        with pytest.raises(Forbidden, match="Delete them first"):
            cluster.world.delete(ConfigMap, "ours", "kaito-system")
    remedy = "kubectl label namespace kaito-system kaito.sh/installation=true"
    assert capsys.readouterr().err.count(remedy) == warnings
