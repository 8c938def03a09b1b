"""`workspace.spec`: how many copies of the model run.

The scale subresource of a CRD must point below `.spec`, so that these fields are not in `resource`. `kubectl scale`,
HorizontalPodAutoscaler and KEDA write `spec.replicas`.
"""

from typing import Annotated, ClassVar, Final

from pydantic import Field

from kaito.api.workspace.node_count import MAX_NODE_COUNT
from kaito.runtime.crd import Rule
from kaito.runtime.meta import Model

DEFAULT_IDLE_SECONDS: Final = 900
"""Time without requests after which a Workspace is scaled to zero. A start takes about as long, so that the nodes of a
Workspace with rare requests cost at most twice as much as the time in which it is used."""

MIN_IDLE_SECONDS: Final = 60
"""The controller polls the servers about every ten seconds."""

_MAX_IDLE_SECONDS: Final = 30 * 24 * 3600


class Autoscaling(Model):
    """Limits of the number of copies, and the scale to zero."""

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

    @property
    def scales_to_zero(self) -> bool:
        """Whether the Workspace has no copies while there are no requests."""
        return self.min_replicas == 0

    @property
    def idle_limit_seconds(self) -> int:
        """Time without requests after which the Workspace is scaled to zero."""
        return self.idle_seconds or DEFAULT_IDLE_SECONDS


class WorkspaceSpec(Model):
    """Number of copies of the model."""

    replicas: (
        Annotated[int, Field(json_schema_extra={"minimum": 0, "maximum": MAX_NODE_COUNT, "format": "int32"})] | None
    ) = None
    """Number of copies of the model that run, instead of `resource.count`; 0 for no copies and no nodes. Written by
    `kubectl scale workspace` and by autoscalers. Admission sets it to `resource.count` when the Workspace is created,
    and when `resource.count` changes. Not for tuning."""

    autoscaling: Autoscaling | None = None
    """Limits of the number of copies, and the scale to zero. Only for presets."""
