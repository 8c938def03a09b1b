from pathlib import Path
from typing import Any, Literal

import pytest
from kaito.runtime import ObjectMeta
from kaito.runtime.kinds import Job
from kaito.runtime.testing import World

from cronjob_operator.api import CronJob, CronJobSpec, definition
from cronjob_operator.controller import controller

DEPLOY = Path(__file__).parents[1] / "deploy"
ACCOUNT = "system:serviceaccount:cronjob-operator:cronjob-operator"
POD = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]}
MINUTE = 60


@pytest.fixture
def world(world: World) -> World:
    world.install(definition())
    return world


def cronjob(**spec: Any) -> CronJob:
    given = {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": POD}}}, **spec}
    return CronJob(metadata=ObjectMeta(name="backup"), spec=CronJobSpec.model_validate(given))


def jobs(world: World) -> list[Job]:
    return sorted(world.list(Job), key=lambda job: job.name)


def finish(world: World, job: Job, outcome: Literal["Complete", "Failed"] = "Complete") -> None:
    status = {"conditions": [{"type": outcome, "status": "True"}]}
    world.patch(Job, job.name, {"status": status}, subresource="status")


async def test_a_job_is_created_every_minute_with_the_template(world: World) -> None:
    async with world.manager(controller):
        world.put(cronjob())
        await world.settle()
        assert jobs(world) == []
        await world.advance(MINUTE)
        [first] = jobs(world)
        assert first.spec.template.spec.containers[0].image == "busybox"
        await world.advance(2 * MINUTE)
        assert len(jobs(world)) == 3
        status = world.get(CronJob, "backup").status
        assert [each.name for each in status.active] == [job.name for job in jobs(world)]
        assert status.last_schedule_time is not None


async def test_forbid_waits_for_the_active_job(world: World) -> None:
    async with world.manager(controller):
        world.put(cronjob(concurrencyPolicy="Forbid"))
        await world.advance(3 * MINUTE)
        [only] = jobs(world)
        finish(world, only)
        await world.settle()
        assert len(jobs(world)) == 2


async def test_replace_deletes_the_active_job(world: World) -> None:
    async with world.manager(controller):
        world.put(cronjob(concurrencyPolicy="Replace"))
        await world.advance(MINUTE)
        [first] = jobs(world)
        await world.advance(MINUTE)
        [second] = jobs(world)
        assert first.name != second.name


async def test_the_history_is_limited_by_outcome(world: World) -> None:
    async with world.manager(controller):
        world.put(cronjob(successfulJobsHistoryLimit=2, failedJobsHistoryLimit=1))
        for minute in range(8):
            await world.advance(MINUTE)
            finish(world, jobs(world)[-1], "Failed" if minute % 2 else "Complete")
            await world.settle()
        outcomes = [each for job in jobs(world) for each in ("Complete", "Failed") if job.has_condition(each)]
        assert sorted(outcomes) == ["Complete", "Complete", "Failed"]


async def test_suspend_creates_nothing_until_it_ends(world: World) -> None:
    async with world.manager(controller):
        world.put(cronjob(suspend=True))
        await world.advance(5 * MINUTE)
        assert jobs(world) == []
        world.put(cronjob(suspend=False))
        await world.settle()
        assert len(jobs(world)) == 1  # the latest of the missed runs


async def test_a_run_that_is_too_late_is_skipped(world: World) -> None:
    world.put(cronjob(schedule="0 * * * *", startingDeadlineSeconds=30))
    await world.advance(3700)
    async with world.manager(controller):
        await world.settle()
        assert jobs(world) == []
        await world.advance(3600)
        assert len(jobs(world)) == 1


async def test_a_deleted_job_is_not_created_again(world: World) -> None:
    async with world.manager(controller):
        world.put(cronjob(schedule="0 * * * *"))
        await world.advance(3600)
        [job] = jobs(world)
        world.delete(Job, job.name)
        await world.settle()
        assert jobs(world) == []


@pytest.mark.parametrize("schedule", ["never", "61 * * * *"])
async def test_a_bad_schedule_is_not_retried(world: World, schedule: str) -> None:
    async with world.manager(controller):
        world.put(cronjob(schedule=schedule))
        await world.settle()
        world.clear_requests()
        await world.advance(3600)
        assert world.count("PATCH") == 0
        world.put(cronjob())
        await world.advance(MINUTE)
        assert jobs(world)


@pytest.mark.seeds(5)
async def test_failures_of_the_api_server_start_no_run_twice(world: World) -> None:
    async with world.manager(controller):
        world.put(cronjob(schedule="*/5 * * * *"))
        world.fail_next("PATCH", Job, drop_connection=True)
        world.fail_next("PATCH", CronJob, status=500)
        await world.advance(16 * MINUTE)
        assert len(jobs(world)) == 3


async def test_the_roles_are_sufficient(world: World) -> None:
    world.apply(DEPLOY)
    async with world.manager(controller, user=ACCOUNT):
        await world.advance(10 * MINUTE)
        assert jobs(world)
        assert world.list(CronJob)[0].status.active
