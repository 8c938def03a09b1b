"""The kind `CronJob`, and its CustomResourceDefinition."""

from typing import Any, Literal

from kaito.runtime import Model, Resource
from kaito.runtime.crd import Column, Field, Version, crd, to_yaml
from kaito.runtime.kinds import JobTemplateSpec, ObjectReference
from kaito.runtime.meta import Time


class CronJobSpec(Model):
    """Desired state."""

    schedule: str = Field(min_length=1)
    """Schedule in cron format, in UTC."""
    starting_deadline_seconds: int | None = Field(default=None, ge=0)
    """A run that could not start within this time is skipped."""
    concurrency_policy: Literal["Allow", "Forbid", "Replace"] = "Allow"
    """What happens if the previous run is still active at the time of the next one."""
    suspend: bool = False
    job_template: JobTemplateSpec
    successful_jobs_history_limit: int = Field(default=3, ge=0)
    failed_jobs_history_limit: int = Field(default=1, ge=0)


class CronJobStatus(Model):
    """Observed state."""

    active: list[ObjectReference] = []
    last_schedule_time: Time | None = None


class CronJob(Resource, api="batch.tutorial.example.com/v1", kind="CronJob"):
    """Jobs that are created on a schedule."""

    spec: CronJobSpec
    status: CronJobStatus = CronJobStatus()


def definition() -> dict[str, Any]:
    """Returns the CustomResourceDefinition."""
    columns = [
        Column("Schedule", ".spec.schedule"),
        Column("Suspend", ".spec.suspend", "boolean"),
        Column("Last schedule", ".status.lastScheduleTime", "date"),
    ]
    return crd([Version(model=CronJob, storage=True, columns=columns)])


if __name__ == "__main__":
    print(to_yaml(definition()), end="")
