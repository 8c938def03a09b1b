"""`workspace.status`: the state that the workspace controller observed."""

from typing import Annotated, Literal

from pydantic import Field

from kaito.api.workspace.cost import CostStatus
from kaito.api.workspace.scaling import AutoscalingStatus
from kaito.runtime.meta import Condition, Model, Time

WorkspaceState = Literal["Pending", "Running", "Ready", "NotReady", "ScaledToZero", "Succeeded", "Failed"]


class PerformanceMetric(Model):
    """One measurement."""

    description: str
    """What was measured and how."""

    value: str
    """The measured value as text."""

    unit: str = ""
    """Unit of the value, for example `tokens/min`."""

    config: dict[str, str] = Field(default_factory=dict[str, str])
    """Settings of the measurement."""


class PerformanceStatus(Model):
    """Measurements of the workload."""

    metrics: dict[str, PerformanceMetric] = Field(default_factory=dict[str, PerformanceMetric])
    """Measurements of the start: `loadTime`, `weights`, `peakMemory`, `kvCacheTokens` and `maxConcurrency`."""


AdapterState = Literal["Pending", "Pulling", "Loading", "Loaded", "Failed"]


class AdapterStatus(Model):
    """State of an adapter that the pods load without a restart."""

    name: str
    """Name of the adapter."""

    state: AdapterState
    """`Loaded` in every ready pod, or the state in the pod that is furthest from it."""

    digest: str = ""
    """Digest of the image that was pulled."""

    message: str = ""
    """Why the adapter is not loaded."""


class ScalingStatus(Model):
    """What is known about a Workspace that scales to zero."""

    last_activity_time: Time | None = None
    """When the last request was noticed, or the copies became ready. Written with a delay."""

    requests_seen: str = ""
    """Digest of the request counters of the pods. A different one after a restart of the controller means that there
    were requests."""

    woken_time: Time | None = None
    """When the Workspace was scaled up from zero, until it is ready."""

    last_start_seconds: Annotated[int, Field(json_schema_extra={"format": "int32"})] | None = None
    """How long the last start from zero copies took, until the model was ready: the estimate for the next one."""


class WorkspaceStatus(Model):
    """Observed state. `state` summarizes `conditions` in one word."""

    observed_generation: int = 0
    """Generation of the Workspace that this status describes."""

    conditions: list[Condition] = Field(default_factory=list[Condition])
    """Conditions such as ResourceReady, InferenceReady and WorkspaceReady, each with reason and message."""

    worker_nodes: list[str] = Field(default_factory=list[str])
    """Names of the Workspace's nodes, sorted."""

    claims: list[str] = Field(default_factory=list[str])
    """Names of the Workspace's Machines or NodeClaims, sorted. A claim that is missing later was lost."""

    state: WorkspaceState | None = None
    """Inference: `Pending` until the model is served for the first time, then `Ready` or `NotReady`; `ScaledToZero`
    without copies. Tuning: `Pending`, `Running`, `Succeeded` or `Failed`."""

    replicas: Annotated[int, Field(json_schema_extra={"format": "int32"})] = 0
    """Number of copies of the model that exist, ready or not."""

    ready_replicas: Annotated[int, Field(json_schema_extra={"format": "int32"})] = 0
    """Number of copies that are ready to answer."""

    selector: str = ""
    """Label selector of the pods that answer requests, one for each copy; autoscalers read it from the scale
    subresource."""

    target_node_count: Annotated[int, Field(json_schema_extra={"format": "int32"})] = 0
    """Number of nodes that the Workspace needs; 0 before it is computed, and without copies."""

    instance_type: str = ""
    """The instance type that is used of those in `resource.instanceTypes`."""

    pending_template: str = ""
    """Digest of the pod template that a new release of the controller would apply, for a Workspace of an InferenceSet,
    which determines when."""

    adapters: list[AdapterStatus] = Field(default_factory=list[AdapterStatus])
    """State of the adapters that change without a restart, sorted by name."""

    autoscaling: AutoscalingStatus | None = None
    """The last decision of scaling by load; absent without `spec.autoscaling.target`."""

    scaling: ScalingStatus | None = None
    """State of scaling to zero and back; absent unless `spec.autoscaling.minReplicas` is 0."""

    performance: PerformanceStatus | None = None
    """What the servers measured when they started; absent until a pod has reported it."""

    cost: CostStatus | None = None
    """Cost of the nodes; absent before the first node exists, and with existing nodes (`--node-api byo`)."""
