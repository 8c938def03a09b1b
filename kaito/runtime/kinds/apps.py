"""Workloads of the `apps` group."""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from kaito.runtime.kinds.core import PersistentVolumeClaim
from kaito.runtime.kinds.pod import PodTemplateSpec
from kaito.runtime.meta import IntOrString, LabelSelector, Model, Resource, Time

if TYPE_CHECKING:
    from kaito.runtime.kinds.structs import DaemonSetUpdateStrategy, StatefulSetOrdinals
else:
    from kaito.runtime.kinds.deferred import DaemonSetUpdateStrategy, StatefulSetOrdinals


class WorkloadCondition(Model):
    """Condition of a workload: `Available`, `Progressing`, `ReplicaFailure`."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_update_time: Time | None = None
    last_transition_time: Time | None = None
    last_probe_time: Time | None = None


class RollingUpdateDeployment(Model):
    """Number of replicas that a rollout may add or make unavailable."""

    max_surge: IntOrString | None = None
    max_unavailable: IntOrString | None = None


class DeploymentStrategy(Model):
    """How old pods are replaced."""

    type: str | None = None
    """`RollingUpdate` or `Recreate`, or a value of a newer API server."""
    rolling_update: RollingUpdateDeployment | None = None


class DeploymentSpec(Model):
    """Desired state of a Deployment."""

    replicas: int | None = None
    selector: LabelSelector = Field(default_factory=LabelSelector)
    template: PodTemplateSpec = Field(default_factory=PodTemplateSpec)
    strategy: DeploymentStrategy | None = None
    min_ready_seconds: int | None = None
    revision_history_limit: int | None = None
    progress_deadline_seconds: int | None = None
    paused: bool | None = None


class DeploymentStatus(Model):
    """Observed state of a Deployment."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    unavailable_replicas: int = 0
    conditions: list[WorkloadCondition] = []
    collision_count: int | None = None
    terminating_replicas: int | None = None


class Deployment(Resource, api="apps/v1", kind="Deployment"):
    """Interchangeable pods with rolling updates."""

    spec: DeploymentSpec = Field(default_factory=DeploymentSpec)
    status: DeploymentStatus = Field(default_factory=DeploymentStatus)


class RollingUpdateStatefulSet(Model):
    """Ordinals that a rollout updates."""

    partition: int | None = None
    max_unavailable: IntOrString | None = None


class StatefulSetUpdateStrategy(Model):
    """How old pods are replaced."""

    type: str | None = None
    """`RollingUpdate` or `OnDelete`, or a value of a newer API server."""
    rolling_update: RollingUpdateStatefulSet | None = None


class StatefulSetRetentionPolicy(Model):
    """Whether claims are deleted when the set is scaled down or deleted."""

    when_deleted: str | None = None
    """`Retain` or `Delete`, or a value of a newer API server."""
    when_scaled: str | None = None
    """`Retain` or `Delete`, or a value of a newer API server."""


class StatefulSetSpec(Model):
    """Desired state of a StatefulSet."""

    replicas: int | None = None
    service_name: str | None = None
    selector: LabelSelector = Field(default_factory=LabelSelector)
    template: PodTemplateSpec = Field(default_factory=PodTemplateSpec)
    volume_claim_templates: list[PersistentVolumeClaim] = []
    pod_management_policy: str | None = None
    """`OrderedReady` or `Parallel`, or a value of a newer API server."""
    update_strategy: StatefulSetUpdateStrategy | None = None
    persistent_volume_claim_retention_policy: StatefulSetRetentionPolicy | None = None
    revision_history_limit: int | None = None
    min_ready_seconds: int | None = None
    ordinals: StatefulSetOrdinals | None = None


class StatefulSetStatus(Model):
    """Observed state of a StatefulSet."""

    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    current_replicas: int = 0
    updated_replicas: int = 0
    available_replicas: int = 0
    current_revision: str = ""
    update_revision: str = ""
    conditions: list[WorkloadCondition] = []
    collision_count: int | None = None


class StatefulSet(Resource, api="apps/v1", kind="StatefulSet"):
    """Pods with stable names and claims."""

    spec: StatefulSetSpec = Field(default_factory=StatefulSetSpec)
    status: StatefulSetStatus = Field(default_factory=StatefulSetStatus)


class DaemonSetSpec(Model):
    """Desired state of a DaemonSet."""

    selector: LabelSelector = Field(default_factory=LabelSelector)
    template: PodTemplateSpec = Field(default_factory=PodTemplateSpec)
    min_ready_seconds: int | None = None
    revision_history_limit: int | None = None
    update_strategy: DaemonSetUpdateStrategy | None = None


class DaemonSetStatus(Model):
    """Observed state of a DaemonSet."""

    observed_generation: int = 0
    desired_number_scheduled: int = 0
    current_number_scheduled: int = 0
    number_ready: int = 0
    number_available: int = 0
    updated_number_scheduled: int = 0
    collision_count: int | None = None
    conditions: list[WorkloadCondition] = []
    number_misscheduled: int | None = None
    number_unavailable: int | None = None


class DaemonSet(Resource, api="apps/v1", kind="DaemonSet"):
    """One pod on every matching node."""

    spec: DaemonSetSpec = Field(default_factory=DaemonSetSpec)
    status: DaemonSetStatus = Field(default_factory=DaemonSetStatus)


class ControllerRevision(Resource, api="apps/v1", kind="ControllerRevision"):
    """Immutable snapshot of a workload's state; its controller defines `data`."""

    data: dict[str, Any] = {}
    revision: int = 0
