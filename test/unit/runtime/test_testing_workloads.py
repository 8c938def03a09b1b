"""The stand-ins of workload controllers: what a StatefulSet's volume claims become."""

from kaito.runtime import LabelSelector, ObjectMeta, Quantity
from kaito.runtime.kinds import (
    Container,
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
from kaito.runtime.testing import World, workloads

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


async def test_claims_go_with_the_set_that_says_so(world: World) -> None:
    await world.start(*workloads())
    world.put(database(1, StatefulSetRetentionPolicy(when_deleted="Delete")))
    await world.settle()
    world.delete(StatefulSet, "db")
    await world.settle()
    assert world.list(PersistentVolumeClaim) == []
