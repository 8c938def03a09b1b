"""`workspace.status`: what the workspace controller observed."""

from typing import Annotated, Literal

from pydantic import Field

from kaito.runtime.meta import Condition, Model

WorkspaceState = Literal["Pending", "Running", "Ready", "NotReady", "Succeeded", "Failed"]


class PerformanceMetric(Model):
    """One measured number."""

    description: str
    """What was measured and how."""

    value: str
    """The number as text."""

    unit: str = ""
    """Unit of the value, for example `tokens/min`."""

    config: dict[str, str] = Field(default_factory=dict[str, str])
    """Settings of the measurement."""


class PerformanceStatus(Model):
    """What a benchmark of the serving workload measured."""

    metrics: dict[str, PerformanceMetric] = Field(default_factory=dict[str, PerformanceMetric])
    """Measured numbers by name, for example `peakTokensPerMinute`."""


class WorkspaceStatus(Model):
    """Observed state. `conditions` hold the detail, `state` is their summary in a word."""

    observed_generation: int = 0
    """Generation of the Workspace that this status describes."""

    conditions: list[Condition] = Field(default_factory=list[Condition])
    """One entry per aspect: ResourceReady, InferenceReady, WorkspaceReady and so on, each with its reason in words."""

    worker_nodes: list[str] = Field(default_factory=list[str])
    """Names of the nodes of this workspace, sorted."""

    claims: list[str] = Field(default_factory=list[str])
    """Names of the Machines or NodeClaims this workspace has, sorted. One that is missing later was lost."""

    state: WorkspaceState | None = None
    """Inference: `Pending` until it first answers, then `Ready` or `NotReady`. Tuning: `Pending`, `Running`,
    `Succeeded` or `Failed`."""

    target_node_count: Annotated[int, Field(json_schema_extra={"format": "int32"})] = 0
    """Number of nodes this workspace should have; 0 before it was computed."""

    performance: PerformanceStatus | None = None
    """Results of a benchmark, if one ran."""
