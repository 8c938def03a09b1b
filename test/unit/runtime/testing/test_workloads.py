"""The stand-ins of workload controllers: pods come, volume claims are made, the status reports the progress."""

from kaito.runtime import LabelSelector, ObjectMeta, Quantity
from kaito.runtime.kinds import (
    ConfigMap,
    Container,
    DaemonSet,
    Deployment,
    Node,
    PersistentVolumeClaim,
    PersistentVolumeClaimSpec,
    Pod,
    PodSpec,
    PodTemplateSpec,
    StatefulSet,
    StatefulSetRetentionPolicy,
    StatefulSetSpec,
    VolumeMount,
    VolumeResourceRequirements,
)
from kaito.runtime.kinds.apps import DaemonSetSpec, DeploymentSpec
from kaito.runtime.testing import World, node, pod, workloads

LABELS = {"app": "db"}


def database(replicas: int, retention: StatefulSetRetentionPolicy | None = None) -> StatefulSet:
    claim = PersistentVolumeClaim(
        metadata=ObjectMeta(name="data", labels={"tier": "gold"}),
        spec=PersistentVolumeClaimSpec(
            access_modes=["ReadWriteOnce"],
            resources=VolumeResourceRequirements(requests={"storage": Quantity("1Gi")}),
        ),
    )
    server = Container(name="db", image="db", volume_mounts=[VolumeMount(name="data", mount_path="/data")])
    return StatefulSet(
        metadata=ObjectMeta(name="db"),
        spec=StatefulSetSpec(
            replicas=replicas,
            service_name="db",
            selector=LabelSelector(match_labels=LABELS),
            template=PodTemplateSpec(metadata=ObjectMeta(labels=LABELS), spec=PodSpec(containers=[server])),
            volume_claim_templates=[claim],
            persistent_volume_claim_retention_policy=retention,
        ),
    )


async def test_each_pod_of_a_stateful_set_mounts_a_claim_of_its_own(world: World) -> None:
    await world.start(*workloads())
    world.put(database(2))
    await world.settle()
    assert world.get(StatefulSet, "db").status.ready_replicas == 2
    claims = world.list(PersistentVolumeClaim)
    assert [claim.name for claim in claims] == ["data-db-0", "data-db-1"]
    assert claims[0].labels == {"tier": "gold", "app": "db"}
    assert claims[0].spec.resources.requests == {"storage": Quantity("1Gi")}
    assert claims[0].status.phase == "Bound"
    (volume,) = world.get(Pod, "db-1").spec.volumes
    assert volume.persistent_volume_claim is not None
    assert volume.persistent_volume_claim.claim_name == "data-db-1"


async def test_a_claim_that_is_there_is_used_again_and_outlives_the_set(world: World) -> None:
    await world.start(*workloads())
    world.put(database(1))
    await world.settle()
    uid = world.get(PersistentVolumeClaim, "data-db-0").uid
    world.delete(StatefulSet, "db")
    await world.settle()
    world.put(database(1))
    await world.settle()
    assert world.get(PersistentVolumeClaim, "data-db-0").uid == uid
    assert world.get(StatefulSet, "db").status.ready_replicas == 1


async def test_claims_are_deleted_with_a_set_whose_policy_is_delete(world: World) -> None:
    await world.start(*workloads())
    world.put(database(1, StatefulSetRetentionPolicy(when_deleted="Delete")))
    await world.settle()
    world.delete(StatefulSet, "db")
    await world.settle()
    assert world.list(PersistentVolumeClaim) == []


def template(**selector: str) -> PodTemplateSpec:
    spec = PodSpec(containers=[Container(name="c", image="i")], node_selector=selector)
    return PodTemplateSpec(metadata=ObjectMeta(labels=LABELS), spec=spec)


async def test_a_deployment_reports_availability(world: World) -> None:
    await world.start(*workloads(ready_after=20))
    spec = DeploymentSpec(replicas=2, selector=LabelSelector(match_labels=LABELS), template=template())
    world.put(Deployment(metadata=ObjectMeta(name="web"), spec=spec))
    await world.settle()
    assert world.condition(Deployment, "web", "Available").reason == "MinimumReplicasUnavailable"
    await world.advance(20)
    assert world.condition(Deployment, "web", "Available").is_true
    assert world.condition(Deployment, "web", "Progressing").reason == "NewReplicaSetAvailable"
    assert world.get(Deployment, "web").status.observed_generation == 1
    world.patch(Pod, "web-0", {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}, subresource="status")
    await world.settle()
    assert not world.condition(Deployment, "web", "Available").is_true
    assert world.get(Deployment, "web").status.ready_replicas == 1


async def test_a_daemon_set_has_a_pod_on_each_fitting_node(world: World) -> None:
    await world.start(*workloads())
    for name, labels in (("n1", {"gpu": "yes"}), ("n2", {}), ("n3", {"gpu": "yes"})):
        world.put(node(name, labels=labels))
    spec = DaemonSetSpec(selector=LabelSelector(match_labels=LABELS), template=template(gpu="yes"))
    world.put(DaemonSet(metadata=ObjectMeta(name="driver"), spec=spec))
    await world.settle()
    assert [(found.name, found.spec.node_name) for found in world.list(Pod)] == [
        ("driver-n1", "n1"),
        ("driver-n3", "n3"),
    ]
    assert world.get(DaemonSet, "driver").status.number_ready == 2
    world.put(node("n4", labels={"gpu": "yes"}))
    world.delete(Node, "n1")
    await world.settle()
    assert [found.name for found in world.list(Pod)] == ["driver-n3", "driver-n4"]
    assert world.get(DaemonSet, "driver").status.desired_number_scheduled == 2


async def test_bare_pods_start_on_request(world: World) -> None:
    await world.start(*workloads(ready_after=5, bare_pods=True))
    owner = world.put(ConfigMap(metadata=ObjectMeta(name="owner")))
    reference = owner.owner_reference()
    metadata = ObjectMeta(name="own", owner_references=[reference])
    world.put(Pod(metadata=metadata, spec=PodSpec(containers=[Container(name="c", image="i")])))
    world.put(pod("running", ready=False))
    await world.settle()
    assert not world.get(Pod, "own").is_ready
    await world.advance(5)
    assert world.get(Pod, "own").is_ready
    assert not world.get(Pod, "running").is_ready, "its status is the test's"
