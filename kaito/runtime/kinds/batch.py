"""Jobs and CronJobs: pods that run to completion, once or on a schedule."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from kaito.runtime.kinds.apps import WorkloadCondition
from kaito.runtime.kinds.pod import PodTemplateSpec
from kaito.runtime.kinds.references import ObjectReference
from kaito.runtime.meta import LabelSelector, Model, ObjectMeta, Resource, Time

if TYPE_CHECKING:
    from kaito.runtime.kinds.structs import PodFailurePolicy, SuccessPolicy, UncountedTerminatedPods
else:
    from kaito.runtime.kinds.deferred import PodFailurePolicy, SuccessPolicy, UncountedTerminatedPods


class JobSpec(Model):
    """Pods, number of completions, and limits of a Job."""

    template: PodTemplateSpec = Field(default_factory=PodTemplateSpec)
    parallelism: int | None = None
    completions: int | None = None
    completion_mode: str | None = None
    """`NonIndexed` or `Indexed`, or a value of a newer API server."""
    backoff_limit: int | None = None
    active_deadline_seconds: int | None = None
    ttl_seconds_after_finished: int | None = None
    selector: LabelSelector | None = None
    manual_selector: bool | None = None
    suspend: bool | None = None
    backoff_limit_per_index: int | None = None
    managed_by: str | None = None
    max_failed_indexes: int | None = None
    pod_failure_policy: PodFailurePolicy | None = None
    pod_replacement_policy: str | None = None
    success_policy: SuccessPolicy | None = None


class JobStatus(Model):
    """Observed state of a Job."""

    active: int = 0
    ready: int = 0
    succeeded: int = 0
    failed: int = 0
    start_time: Time | None = None
    completion_time: Time | None = None
    conditions: list[WorkloadCondition] = []
    completed_indexes: str | None = None
    failed_indexes: str | None = None
    terminating: int | None = None
    uncounted_terminated_pods: UncountedTerminatedPods | None = None


class Job(Resource, api="batch/v1", kind="Job"):
    """Pods that run to completion."""

    spec: JobSpec = Field(default_factory=JobSpec)
    status: JobStatus = Field(default_factory=JobStatus)

    def has_condition(self, condition_type: Literal["Complete", "Failed", "Suspended", "SuccessCriteriaMet"]) -> bool:
        """Whether the condition is True."""
        return any(c.type == condition_type and c.status == "True" for c in self.status.conditions)


class JobTemplateSpec(Model):
    """Template of the Jobs of a CronJob."""

    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: JobSpec = Field(default_factory=JobSpec)


class CronJobSpec(Model):
    """Schedule and Job template of a CronJob."""

    schedule: str = ""
    time_zone: str | None = None
    job_template: JobTemplateSpec = Field(default_factory=JobTemplateSpec)
    concurrency_policy: str | None = None
    """`Allow`, `Forbid` or `Replace`, or a value of a newer API server."""
    starting_deadline_seconds: int | None = None
    successful_jobs_history_limit: int | None = None
    failed_jobs_history_limit: int | None = None
    suspend: bool | None = None


class CronJobStatus(Model):
    """Last runs of a CronJob."""

    active: list[ObjectReference] = []
    last_schedule_time: Time | None = None
    last_successful_time: Time | None = None


class CronJob(Resource, api="batch/v1", kind="CronJob"):
    """Jobs that are created on a schedule."""

    spec: CronJobSpec = Field(default_factory=CronJobSpec)
    status: CronJobStatus = Field(default_factory=CronJobStatus)
