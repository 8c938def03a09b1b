"""Workloads of the `apps` group."""

from typing import Any

from kaito.runtime.kinds.core import PersistentVolumeClaim
from kaito.runtime.kinds.pod import PodTemplateSpec
from kaito.runtime.meta import IntOrString, LabelSelector, Model, Resource, Time


class WorkloadCondition(Model):
    """A condition of a workload: `Available`, `Progressing`, `ReplicaFailure`."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_update_time: Time | None = None
    last_transition_time: Time | None = None


class RollingUpdateDeployment(Model):
    """How many replicas a rollout may add or take away."""

    max_surge: IntOrString | None = None
    max_unavailable: IntOrString | None = None


class DeploymentStrategy(Model):
    """How old pods are replaced."""

    type: str | None = None
    """`RollingUpdate` or `Recreate`, or a value of a newer API server."""
    rolling_update: RollingUpdateDeployment | None = None


class DeploymentSpec(Model):
    """A number of equal pods."""

    replicas: int | None = None
    selector: LabelSelector = LabelSelector()
    template: PodTemplateSpec = PodTemplateSpec()
    strategy: DeploymentStrategy | None = None
    min_ready_seconds: int | None = None
    revision_history_limit: int | None = None
    progress_deadline_seconds: int | None = None
    paused: bool | None = None


class DeploymentStatus(Model):
    """The observed state of a deployment."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    unavailable_replicas: int = 0
    conditions: list[WorkloadCondition] = []


class Deployment(Resource, api="apps/v1", kind="Deployment"):
    """Interchangeable pods, rolled out in steps."""

    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()


class RollingUpdateStatefulSet(Model):
    """Which ordinals a rollout touches."""

    partition: int | None = None
    max_unavailable: IntOrString | None = None


class StatefulSetUpdateStrategy(Model):
    """How old pods are replaced."""

    type: str | None = None
    """`RollingUpdate` or `OnDelete`, or a value of a newer API server."""
    rolling_update: RollingUpdateStatefulSet | None = None


class StatefulSetRetentionPolicy(Model):
    """What becomes of claims when the set shrinks or goes."""

    when_deleted: str | None = None
    """`Retain` or `Delete`, or a value of a newer API server."""
    when_scaled: str | None = None
    """`Retain` or `Delete`, or a value of a newer API server."""


class StatefulSetSpec(Model):
    """A number of pods with stable names and claims."""

    replicas: int | None = None
    service_name: str | None = None
    selector: LabelSelector = LabelSelector()
    template: PodTemplateSpec = PodTemplateSpec()
    volume_claim_templates: list[PersistentVolumeClaim] = []
    pod_management_policy: str | None = None
    """`OrderedReady` or `Parallel`, or a value of a newer API server."""
    update_strategy: StatefulSetUpdateStrategy | None = None
    persistent_volume_claim_retention_policy: StatefulSetRetentionPolicy | None = None
    revision_history_limit: int | None = None
    min_ready_seconds: int | None = None


class StatefulSetStatus(Model):
    """The observed state of a stateful set."""

    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    current_replicas: int = 0
    updated_replicas: int = 0
    available_replicas: int = 0
    current_revision: str = ""
    update_revision: str = ""
    conditions: list[WorkloadCondition] = []


class StatefulSet(Resource, api="apps/v1", kind="StatefulSet"):
    """Pods with stable names, one after the other."""

    spec: StatefulSetSpec = StatefulSetSpec()
    status: StatefulSetStatus = StatefulSetStatus()


class DaemonSetSpec(Model):
    """One pod on every fitting node."""

    selector: LabelSelector = LabelSelector()
    template: PodTemplateSpec = PodTemplateSpec()
    min_ready_seconds: int | None = None


class DaemonSetStatus(Model):
    """The observed state of a daemon set."""

    observed_generation: int = 0
    desired_number_scheduled: int = 0
    current_number_scheduled: int = 0
    number_ready: int = 0
    number_available: int = 0
    updated_number_scheduled: int = 0


class DaemonSet(Resource, api="apps/v1", kind="DaemonSet"):
    """A pod per node."""

    spec: DaemonSetSpec = DaemonSetSpec()
    status: DaemonSetStatus = DaemonSetStatus()


class ControllerRevision(Resource, api="apps/v1", kind="ControllerRevision"):
    """An immutable snapshot of a workload's state; `data` is whatever its controller stores."""

    data: dict[str, Any] = {}
    revision: int = 0
