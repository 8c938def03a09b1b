"""`workspace.spec`: how many copies of the model run.

The scale subresource of a CRD must point below `.spec`, so that these fields are not in `resource`. `kubectl scale`,
HorizontalPodAutoscaler and KEDA write `spec.replicas`.
"""

from typing import Annotated, ClassVar, Final

from pydantic import Field

from kaito.api.workspace.node_count import MAX_NODE_COUNT
from kaito.runtime.crd import Rule
from kaito.runtime.meta import Model, Time

DEFAULT_IDLE_SECONDS: Final = 900
"""Time without requests after which a Workspace is scaled to zero. A start takes about as long, so that the nodes of a
Workspace with rare requests cost at most twice as much as the time in which it is used."""

MIN_IDLE_SECONDS: Final = 60
"""The controller polls the servers about every ten seconds."""

_MAX_IDLE_SECONDS: Final = 30 * 24 * 3600


DEFAULT_UP_SECONDS: Final = 30
DEFAULT_DOWN_SECONDS: Final = 600
"""Windows for scaling up and down. A new copy takes minutes and a node of its own, so that removing one is slow."""


class ScalingTarget(Model):
    """Load of each copy that the controller keeps; the target that needs the most copies decides."""

    rules: ClassVar = [
        Rule(
            "has(self.requests) || has(self.queueSeconds) || has(self.cacheUsagePercent)",
            "is empty: set requests, for example 16",
        ),
    ]

    requests: Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": 4096, "format": "int32"})] | None = None
    """Requests that run or wait in a copy."""

    queue_seconds: Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": 600, "format": "int32"})] | None = (
        None
    )
    """Mean time that requests wait before they run. Only vLLM reports it; without it no copy is removed."""

    cache_usage_percent: (
        Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": 100, "format": "int32"})] | None
    ) = None
    """Used share of the key-value cache. Only vLLM reports it; without it no copy is removed."""


class ScalingStep(Model):
    """How fast copies are added or removed."""

    window_seconds: (
        Annotated[int, Field(json_schema_extra={"minimum": 0, "maximum": 3600, "format": "int32"})] | None
    ) = None
    """Time for which the load must require the change. Default: 30 for adding copies, 600 for removing them."""

    copies_per_minute: (
        Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": MAX_NODE_COUNT, "format": "int32"})] | None
    ) = None
    """Largest change per minute. Default: 4 for adding copies, 1 for removing them."""


class ScheduledMinimum(Model):
    """Fewest copies in a window of time."""

    schedule: Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 256})]
    """Start of the window: a cron expression with five fields, in UTC, for example `0 7 * * 1-5`."""

    duration: Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 32})]
    """Length of the window, for example `10h`."""

    min_replicas: Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": MAX_NODE_COUNT, "format": "int32"})]
    """Fewest copies in the window."""


class Autoscaling(Model):
    """Limits of the number of copies, scaling by load, and the scale to zero."""

    rules: ClassVar = [
        Rule(
            "!has(self.maxReplicas) || !has(self.minReplicas) || self.minReplicas <= self.maxReplicas",
            "is less than minReplicas: raise it",
            field_path=".maxReplicas",
        ),
        Rule(
            "!has(self.idleSeconds) || (has(self.minReplicas) && self.minReplicas == 0)",
            "has no effect unless minReplicas is 0: set minReplicas to 0, or remove it",
            field_path=".idleSeconds",
        ),
        Rule(
            "!has(self.target) || has(self.maxReplicas)",
            "is needed with target, because every copy costs a node: set it",
            field_path=".maxReplicas",
        ),
        Rule(
            "has(self.target) || !(has(self.scaleUp) || has(self.scaleDown) || "
            "(has(self.schedule) && size(self.schedule) > 0))",
            "is needed with scaleUp, scaleDown and schedule: set target.requests, or remove them",
            field_path=".target",
        ),
    ]

    min_replicas: Annotated[
        int, Field(json_schema_extra={"minimum": 0, "maximum": MAX_NODE_COUNT, "format": "int32"})
    ] = 1
    """Fewest copies. With 0, the Workspace is scaled to zero after `idleSeconds` without requests, and a request to its
    Service starts a copy again. A Workspace that is scaled to zero by hand stays there."""

    max_replicas: (
        Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": MAX_NODE_COUNT, "format": "int32"})] | None
    ) = None
    """Most copies. A larger `spec.replicas` is lowered to it. Default: no limit but that of a Workspace."""

    idle_seconds: (
        Annotated[
            int,
            Field(json_schema_extra={"minimum": MIN_IDLE_SECONDS, "maximum": _MAX_IDLE_SECONDS, "format": "int32"}),
        ]
        | None
    ) = None
    """Time without requests after which the Workspace is scaled to zero, if `minReplicas` is 0. Default: 900."""

    target: ScalingTarget | None = None
    """Load of each copy. With it, the controller writes `replicas`."""

    scale_up: ScalingStep | None = None
    """How fast copies are added."""

    scale_down: ScalingStep | None = None
    """How fast copies are removed."""

    schedule: Annotated[list[ScheduledMinimum], Field(json_schema_extra={"maxItems": 16})] = Field(
        default_factory=list[ScheduledMinimum]
    )
    """Fewest copies at certain times; `maxReplicas` still limits them."""

    @property
    def scales_to_zero(self) -> bool:
        """Whether the Workspace has no copies while there are no requests."""
        return self.min_replicas == 0

    @property
    def idle_limit_seconds(self) -> int:
        """Time without requests after which the Workspace is scaled to zero."""
        return self.idle_seconds or DEFAULT_IDLE_SECONDS


class AutoscalingStatus(Model):
    """The last decision about the number of copies."""

    replicas: Annotated[int, Field(json_schema_extra={"format": "int32"})]
    """Number of copies that was decided."""

    reason: str
    """`Load`, `Limit`, `Schedule`, `Steady`, `Stabilizing`, `RateLimited` or `UnknownLoad`."""

    message: str = ""
    """Cause of the decision when it was first made."""

    time: Time
    """When the decision was first made."""

    last_scale_time: Time | None = None
    """When the number of copies was last changed by the controller."""


class WorkspaceSpec(Model):
    """Number of copies of the model."""

    replicas: (
        Annotated[int, Field(json_schema_extra={"minimum": 0, "maximum": MAX_NODE_COUNT, "format": "int32"})] | None
    ) = None
    """Number of copies of the model that run, instead of `resource.count`; 0 for no copies and no nodes. Written by
    `kubectl scale workspace` and by autoscalers. Admission sets it to `resource.count` when the Workspace is created,
    and when `resource.count` changes. Not for tuning."""

    autoscaling: Autoscaling | None = None
    """Limits of the number of copies, scaling by load, and the scale to zero. Only for presets."""
