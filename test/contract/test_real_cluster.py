"""The `real_cluster` fixture's parts, as tests of an operator use them, on a real kube-apiserver."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hack.envtest import ControlPlane
from kaito.runtime import Controller, Model, ObjectMeta, Request, Resource
from kaito.runtime.errors import ApiError, NotFound
from kaito.runtime.kinds import ConfigMap, CustomResourceDefinition, Deployment, Pod
from kaito.runtime.kinds.apps import DeploymentSpec
from kaito.runtime.testing import workloads
from kaito.runtime.testing.envtest import RealCluster, Unavailable, find_binaries
from kaito.runtime.webhook import Admission, Webhook

pytestmark = pytest.mark.real


class BellSpec(Model):
    tone: str = "c"


class Bell(Resource, api="real.contract.dev/v1", kind="Bell"):
    spec: BellSpec = BellSpec()


async def ring(request: Request[Bell]) -> None:
    tone = ConfigMap(metadata=ObjectMeta(name=request.key.name), data={"tone": request.object.spec.tone})
    await request.api.ensure(tone, owner=request.object)


@pytest.fixture
async def cluster(control_plane: ControlPlane) -> AsyncIterator[RealCluster]:
    """The same that the plugin's `real_cluster` is, on the control plane of this folder."""
    async with RealCluster(control_plane.kubeconfig) as cluster:
        yield cluster


async def test_an_operator_runs_in_its_namespace_and_leaves_nothing_behind(control_plane: ControlPlane) -> None:
    async with RealCluster(control_plane.kubeconfig) as cluster:
        await cluster.install(Bell)
        await cluster.install(Bell)
        metadata = ObjectMeta(name="b", namespace=cluster.namespace, finalizers=["real.contract.dev/nobody"])
        elsewhere = ObjectMeta(name="other", namespace="default")
        for each in (metadata, elsewhere):
            await cluster.client.create(Bell(metadata=each))
        controller = Controller(Bell, ring).owns(ConfigMap)
        async with cluster.manager(controller, lease="bells") as manager:

            async def rung() -> bool:
                return (await cluster.client.get(ConfigMap, "b", cluster.namespace)).data == {"tone": "c"}

            await cluster.eventually(rung)
            assert manager.is_leader
            assert await cluster.client.find(ConfigMap, "other", "default") is None
    async with RealCluster(control_plane.kubeconfig) as after:
        assert await after.client.find(CustomResourceDefinition, "bells.real.contract.dev") is None


async def test_webhooks_are_asked_over_tls(cluster: RealCluster) -> None:
    def validate(admission: Admission[Bell]) -> None:
        if admission.object is not None and admission.object.spec.tone == "h":
            admission.deny("spec.tone", "that is b elsewhere")

    webhook = Webhook(Bell, validate=validate)
    await cluster.install(Bell)
    await cluster.admit(webhook)

    async def refused() -> bool:
        wrong = Bell(metadata=ObjectMeta(generate_name="b-", namespace=cluster.namespace), spec=BellSpec(tone="h"))
        try:
            await cluster.client.create(wrong)
        except ApiError as error:
            return "spec.tone: that is b elsewhere" in str(error)
        return False

    async with cluster.manager(webhooks=[webhook]):
        await cluster.eventually(refused, within=20)
        await cluster.client.create(Bell(metadata=ObjectMeta(name="b", namespace=cluster.namespace)))


async def test_the_finalizer_of_an_admitted_object_stays_and_costs_no_request(cluster: RealCluster) -> None:
    finalizer = "real.contract.dev/cleanup"

    async def nothing(request: Request[Bell]) -> None:
        """A reconcile and a cleanup without effect."""

    webhook = Webhook(Bell, finalizer=finalizer)
    await cluster.install(Bell)
    before = Bell(metadata=ObjectMeta(name="before", namespace=cluster.namespace))
    await cluster.client.create(before)
    await cluster.admit(webhook)

    async def finalizers(name: str) -> list[str]:
        return (await cluster.client.get(Bell, name, cluster.namespace)).metadata.finalizers

    async def is_admitted() -> bool:
        probe = Bell(metadata=ObjectMeta(generate_name="probe-", namespace=cluster.namespace))
        return (await cluster.client.create(probe, dry_run=True)).metadata.finalizers == [finalizer]

    async with cluster.manager(webhooks=[webhook]):
        await cluster.eventually(is_admitted, within=20)
        applied = Bell(metadata=ObjectMeta(name="applied", namespace=cluster.namespace), spec=BellSpec(tone="a"))
        first = await cluster.client.apply(applied)
        await cluster.client.create(applied.with_metadata(name="created"))
        assert first.metadata.finalizers == [finalizer]
        changed = await cluster.client.apply(applied.evolve(spec=BellSpec(tone="b")))
        assert changed.metadata.finalizers == [finalizer], "an apply without the finalizer does not remove it"
        version = (await cluster.client.get(Bell, "created", cluster.namespace)).metadata.resource_version
        async with cluster.manager(Controller(Bell, nothing).finalizes(finalizer, nothing), name="owner"):

            async def complete() -> bool:
                return await finalizers("before") == [finalizer]

            await cluster.eventually(complete)
            created = await cluster.client.get(Bell, "created", cluster.namespace)
            assert created.metadata.resource_version == version, "the controller had nothing to write"
            for name in ("before", "applied", "created"):
                await cluster.client.delete(await cluster.client.get(Bell, name, cluster.namespace))

            async def deleted() -> bool:
                return not await cluster.client.list(Bell, namespace=cluster.namespace)

            await cluster.eventually(deleted)


async def test_stand_ins_make_workloads_ready(cluster: RealCluster) -> None:
    await cluster.start(*workloads())
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = DeploymentSpec.model_validate({"selector": {"matchLabels": {"a": "b"}}, "template": template})
    metadata = ObjectMeta(name="web", namespace=cluster.namespace)
    await cluster.client.create(Deployment(metadata=metadata, spec=spec))

    async def ready() -> bool:
        return (await cluster.client.get(Deployment, "web", cluster.namespace)).status.ready_replicas == 1

    await cluster.eventually(ready)
    assert (await cluster.client.get(Pod, "web-0", cluster.namespace)).is_ready


async def test_what_never_holds_is_told_with_its_last_reason(cluster: RealCluster) -> None:
    def wrong() -> bool:
        assert 1 + 1 == 3, "arithmetic"
        return True

    with pytest.raises(AssertionError, match=r"the sum did not hold within 0\.2 s") as caught:
        await cluster.eventually(wrong, within=0.2, what="the sum")
    assert "arithmetic" in str(caught.value.__cause__)

    async def missing() -> bool:
        await cluster.client.get(ConfigMap, "nothing", cluster.namespace)
        return True

    with pytest.raises(AssertionError, match="the condition did not hold") as caught:
        await cluster.eventually(missing, within=0.2)
    assert isinstance(caught.value.__cause__, NotFound)


def test_binaries_are_found_where_setup_envtest_puts_them(tmp_path: Path) -> None:
    for name in ("etcd", "kube-apiserver"):
        (tmp_path / name).touch()
    (tmp_path / "mine").touch()
    environment = {"KUBEBUILDER_ASSETS": str(tmp_path), "TEST_ASSET_ETCD": str(tmp_path / "mine")}
    found = find_binaries(environment=environment)
    assert found == {"etcd": tmp_path / "mine", "kube-apiserver": tmp_path / "kube-apiserver"}
    with pytest.raises(Unavailable, match="/nowhere/etcd, /nowhere/kube-apiserver missing: set KUBEBUILDER_ASSETS"):
        find_binaries(environment={"KUBEBUILDER_ASSETS": "/nowhere"})
