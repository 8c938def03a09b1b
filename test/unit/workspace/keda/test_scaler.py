"""What KEDA is answered, in virtual time: the value of each metric, the activity, and the errors."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kaito.api import Workspace
from kaito.runtime.kinds import Pod
from kaito.runtime.testing import World
from kaito.runtime.testing.simulate.wall_clock import ProcessClock
from kaito.workspace.activator.listeners import cached_kinds
from kaito.workspace.keda.loads import FORGET_SECONDS, FRESH_SECONDS, LoadReader
from kaito.workspace.keda.scaler import KedaScaler, ScalerError
from kaito.workspace.keda.trigger import Trigger, parse_trigger
from test.unit.workspace.keda.conftest import METRICS, NAME, Scene

QUEUE = "vllm:request_queue_time_seconds_sum {sum}\nvllm:request_queue_time_seconds_count {count}\n"


def trigger(**metadata: str) -> Trigger:
    return parse_trigger("scaled", "default", {"workspace": NAME, "requests": "10"} | metadata)


ALL = trigger(queueSeconds="5", cacheUsagePercent="80")


class Answers:
    """The scaler in a cluster."""

    def __init__(self, scene: Scene, scaler: KedaScaler, loads: LoadReader) -> None:
        self.scene, self.scaler, self.loads = scene, scaler, loads

    async def value(self, metric: str = "requests", asked: Trigger = ALL) -> float:
        await self.scene.world.settle()
        return await self.scaler.value(asked, metric)

    async def error(self, metric: str = "requests", asked: Trigger = ALL) -> tuple[str, str]:
        with pytest.raises(ScalerError) as raised:
            await self.value(metric, asked)
        return raised.value.status, str(raised.value)

    async def active(self, asked: Trigger = ALL) -> bool:
        await self.scene.world.settle()
        return await self.scaler.is_active(asked)


@pytest.fixture
def scene(world: World) -> Scene:
    return Scene(world)


@asynccontextmanager
async def answers(scene: Scene, held: int = 0) -> AsyncGenerator[Answers]:
    loads = LoadReader(scene.world.clock, scene.fetch)
    async with scene.world.manager(cache=cached_kinds(keda=True)) as manager:
        yield Answers(scene, KedaScaler(lambda: manager.api, loads, lambda _: held), loads)


async def test_requests_are_the_sum_of_all_copies_and_of_the_held_ones(scene: Scene, phi: Workspace) -> None:
    scene.workspace(phi, replicas=2)
    scene.copy(0, METRICS.format(running=7, waiting=2))
    scene.copy(1, METRICS.format(running=1, waiting=0))
    async with answers(scene, held=3) as asked:
        assert await asked.value() == 13


async def test_copies_that_do_not_report_have_the_load_of_the_others(scene: Scene, phi: Workspace) -> None:
    scene.workspace(phi, replicas=2)
    scene.copy(0, METRICS.format(running=6, waiting=0))
    scene.copy(1, None)
    async with answers(scene) as asked:
        assert await asked.value() == 12


async def test_the_activity_of_a_set_is_read_from_the_cache(scene: Scene) -> None:
    """An open stream reads it every second."""
    scene.inference_set(replicas=2)
    asked = parse_trigger("scaled", "default", {"inferenceSet": NAME, "requests": "16"})
    async with answers(scene) as answering:
        await scene.world.settle()
        scene.world.clear_requests()
        assert await answering.active(asked)
        assert scene.world.count("GET") == 0


async def test_the_load_is_read_once_for_all_metrics_and_again_later(scene: Scene, phi: Workspace) -> None:
    scene.workspace(phi)
    scene.copy(0, METRICS.format(running=1, waiting=0) + "vllm:kv_cache_usage_perc 0.25\n")
    async with answers(scene) as asked:
        assert (await asked.value(), await asked.value("cache-usage-percent"), scene.reads) == (1, 25, 1)
        scene.report(0, METRICS.format(running=5, waiting=0))
        assert await asked.value() == 1
        await scene.world.advance(FRESH_SECONDS + 1)
        assert (await asked.value(), scene.reads) == (5, 2)


async def test_a_reading_of_a_clock_ahead_is_not_used_again(scene: Scene, phi: Workspace) -> None:
    scene.workspace(phi)
    scene.copy(0, METRICS.format(running=1, waiting=0))
    clock = ProcessClock(scene.world.clock)
    clock.offset_seconds = 86400.0
    loads, pods = LoadReader(clock, scene.fetch), scene.world.list(Pod)
    await loads.read(NAME, pods)
    clock.offset_seconds = 0.0
    await loads.read(NAME, pods)
    assert scene.reads == 2


async def test_a_new_copy_is_read_at_once(scene: Scene, phi: Workspace) -> None:
    scene.workspace(phi, replicas=2)
    scene.copy(0, METRICS.format(running=4, waiting=0))
    async with answers(scene) as asked:
        assert await asked.value() == 4
        scene.copy(1, METRICS.format(running=3, waiting=0))
        assert await asked.value() == 7


async def test_the_mean_time_in_the_queue_needs_two_readings(scene: Scene, phi: Workspace) -> None:
    scene.workspace(phi, replicas=2)
    busy = METRICS.format(running=1, waiting=1)
    for ordinal in range(2):
        scene.copy(ordinal, busy + QUEUE.format(sum=100, count=10))
    async with answers(scene) as asked:
        status, message = await asked.error("queue-seconds")
        assert (status, "from the second request on" in message) == ("UNAVAILABLE", True)
        await scene.world.advance(15)
        for ordinal in range(2):
            scene.report(ordinal, busy + QUEUE.format(sum=120, count=14))
        assert await asked.value("queue-seconds") == 10, "5 s for each of two copies"


async def test_an_object_for_which_nothing_is_asked_is_forgotten(scene: Scene, phi: Workspace) -> None:
    scene.workspace(phi)
    scene.copy(0, METRICS.format(running=1, waiting=0) + QUEUE.format(sum=1, count=1))
    async with answers(scene) as asked:
        await asked.value()
        await scene.world.advance(FORGET_SECONDS + 60)
        assert (await asked.error("queue-seconds"))[0] == "UNAVAILABLE"


async def test_a_set_is_scaled_by_the_copies_of_all_its_workspaces(scene: Scene) -> None:
    scene.inference_set(replicas=2)
    scene.copy(0, METRICS.format(running=2, waiting=0), workspace="phi-a", created_by=NAME)
    scene.copy(1, METRICS.format(running=3, waiting=1), workspace="phi-b", created_by=NAME)
    scene.copy(2, METRICS.format(running=90, waiting=0), workspace="other", created_by="other")
    asked_set = parse_trigger("scaled", "default", {"inferenceSet": NAME, "requests": "10"})
    async with answers(scene) as asked:
        assert (await asked.value(asked=asked_set), await asked.active(asked_set)) == (6, True)


async def test_targets_of_a_set_on_divided_gpus_are_those_of_a_copy(scene: Scene) -> None:
    resource = {"instanceType": "Standard_NC24ads_A100_v4", "partition": {"mode": "mig", "profile": "1g.10gb"}}
    scene.inference_set(replicas=1, template={"resource": resource, "inference": {"preset": {"name": "qwen3.5-2b"}}})
    for ordinal in range(7):
        scene.copy(ordinal, METRICS.format(running=20, waiting=0), workspace="phi-a", created_by=NAME)
    asked_set = parse_trigger("scaled", "default", {"inferenceSet": NAME, "requests": "10"})
    async with answers(scene) as asked:
        assert await asked.value(asked=asked_set) == 20


@pytest.mark.parametrize(("replicas", "held", "active"), [(0, 0, False), (0, 2, True), (1, 0, True)])
async def test_an_object_is_active_with_copies_or_held_requests(
    scene: Scene, phi: Workspace, replicas: int, held: int, active: bool
) -> None:
    scene.workspace(phi, replicas=replicas, autoscaling={"minReplicas": 0})
    async with answers(scene, held=held) as asked:
        assert await asked.active() is active
        if replicas == 0:
            assert (await asked.value(), await asked.value("queue-seconds")) == (held, 0)


async def test_what_cannot_be_answered_is_named_with_its_remedy(scene: Scene, phi: Workspace) -> None:
    async with answers(scene) as asked:
        status, message = await asked.error()
        assert (status, message.startswith("Workspace default/phi does not exist: metadata.workspace")) == (
            "NOT_FOUND",
            True,
        )
        missing_set = parse_trigger("scaled", "default", {"inferenceSet": "no", "requests": "1"})
        assert (await asked.error(asked=missing_set))[0] == "NOT_FOUND"

        scene.workspace(phi, autoscaling={"maxReplicas": 3, "target": {"requests": 4}})
        status, message = await asked.error()
        assert (status, message.endswith("remove the target or the ScaledObject")) == ("FAILED_PRECONDITION", True)
        scene.world.patch(Workspace, NAME, {"spec": {"autoscaling": None}})
        waiting: dict[str, Any] = {"type": "InferenceReady", "status": "False", "reason": "PodsPending"}
        waiting |= {"message": "1 of 1 copies starts", "lastTransitionTime": "2030-01-01T00:00:00Z"}
        scene.world.patch(Workspace, NAME, {"status": {"conditions": [waiting]}}, subresource="status")
        assert await asked.error() == ("UNAVAILABLE", "no copy of Workspace default/phi is ready: 1 of 1 copies starts")

        scene.copy(0, "process_cpu_seconds_total 1\n")
        status, message = await asked.error()
        assert (status, message.startswith("none of the 1 ready copies")) == ("UNAVAILABLE", True)
        await scene.world.advance(60)
        scene.report(0, "kaito_generation_in_flight 3\n")
        assert await asked.value() == 3
        status, message = await asked.error("cache-usage-percent")
        assert (status, message.endswith("use metadata.requests")) == ("FAILED_PRECONDITION", True)
        assert await asked.error("s0-requests") == (
            "INVALID_ARGUMENT",
            "metric 's0-requests' has no target in the trigger; it has: requests, queue-seconds, cache-usage-percent",
        )


async def test_a_workspace_for_tuning_is_refused(scene: Scene, phi: Workspace) -> None:
    document = phi.with_metadata(name=NAME).to_dict()
    del document["inference"]
    document["tuning"] = {
        "preset": {"name": "phi-3-mini-4k-instruct"},
        "method": "qlora",
        "input": {"urls": ["https://example.com/data.parquet"]},
        "output": {"image": "registry.example/out:1", "imagePushSecret": "push"},
    }
    scene.world.put(Workspace.model_validate(document))
    async with answers(scene) as asked:
        assert await asked.error() == (
            "FAILED_PRECONDITION",
            "Workspace default/phi is for tuning, which has no copies",
        )
