"""Stateful sets and jobs of the local cluster, on the in-memory API server in virtual time."""

import pytest

from kaito.local.workloads.job import jobs
from kaito.local.workloads.stateful_set import REVISION_LABEL, stateful_sets
from kaito.runtime.kinds import Job, Pod, PodTemplateSpec, StatefulSet
from kaito.runtime.kinds.apps import StatefulSetSpec
from kaito.runtime.kinds.batch import JobSpec
from kaito.runtime.kinds.pod import PodSpec
from kaito.runtime.meta import LabelSelector, ObjectMeta
from kaito.runtime.testing import World

LABELS = {"app": "a"}


def template(image: str = "local/a:1", *, policy: str = "Always") -> PodTemplateSpec:
    return PodTemplateSpec(
        metadata=ObjectMeta(labels=LABELS),
        spec=PodSpec.model_validate({"containers": [{"name": "c", "image": image}], "restartPolicy": policy}),
    )


def stateful_set(replicas: int = 2) -> StatefulSet:
    spec = StatefulSetSpec(
        replicas=replicas,
        service_name="a-headless",
        selector=LabelSelector(match_labels=LABELS),
        template=template(),
        pod_management_policy="Parallel",
    )
    return StatefulSet(metadata=ObjectMeta(name="a", namespace="default"), spec=spec)


def set_phase(world: World, name: str, phase: str, *, ready: bool = False) -> None:
    ready_condition = {"type": "Ready", "status": str(ready)}
    world.patch(Pod, name, {"status": {"phase": phase, "conditions": [ready_condition]}}, subresource="status")


async def test_pods_have_ordinals_and_readiness_is_counted(world: World) -> None:
    world.put(stateful_set())
    async with world.manager(stateful_sets()):
        await world.settle()
        assert [pod.name for pod in world.list(Pod)] == ["a-0", "a-1"]
        set_phase(world, "a-0", "Running", ready=True)
        await world.settle()
        status = world.get(StatefulSet, "a").status
        assert (status.replicas, status.ready_replicas, status.observed_generation) == (2, 1, 1)


async def test_a_new_template_replaces_pods_one_at_a_time_from_the_highest(world: World) -> None:
    world.put(stateful_set())
    async with world.manager(stateful_sets()):
        await world.settle()
        for name in ("a-0", "a-1"):
            set_phase(world, name, "Running", ready=True)
        await world.settle()
        old = world.get(Pod, "a-1").labels[REVISION_LABEL]
        assert world.get(StatefulSet, "a").status.update_revision == old, "as in Kubernetes, one name for both"
        world.patch(StatefulSet, "a", {"spec": {"template": template("local/a:2").to_dict()}})
        await world.settle()
        assert world.get(Pod, "a-1").labels[REVISION_LABEL] != old
        assert world.get(Pod, "a-0").labels[REVISION_LABEL] == old
        set_phase(world, "a-1", "Running", ready=True)
        await world.settle()
        assert world.get(Pod, "a-0").labels[REVISION_LABEL] != old


async def test_fewer_replicas_remove_the_highest(world: World) -> None:
    world.put(stateful_set())
    async with world.manager(stateful_sets()):
        await world.settle()
        world.patch(StatefulSet, "a", {"spec": {"replicas": 1}})
        await world.settle()
        assert [pod.name for pod in world.list(Pod)] == ["a-0"]


@pytest.mark.parametrize(
    ("ends", "condition", "failed"),
    [(["Succeeded"], "Complete", 0), (["Failed", "Succeeded"], "Complete", 1), (["Failed", "Failed"], "Failed", 2)],
)
async def test_a_job_retries_up_to_its_limit(world: World, ends: list[str], condition: str, failed: int) -> None:
    spec = JobSpec(template=template(policy="Never"), backoff_limit=1)
    world.put(Job(metadata=ObjectMeta(name="j", namespace="default"), spec=spec))
    async with world.manager(jobs()):
        for attempt, phase in enumerate(ends):
            await world.settle()
            set_phase(world, f"j-{attempt}", phase)
        await world.settle()
        job = world.get(Job, "j")
        assert job.status.failed == failed
        assert [c.type for c in job.status.conditions if c.status == "True"] == [condition]
        assert len(world.list(Pod)) == len(ends)
