"""`workspace.spec`: how many copies of the model run.

The scale subresource of a CRD must point below `.spec`, so that these fields are not in `resource`. `kubectl scale`,
HorizontalPodAutoscaler and KEDA write `spec.replicas`.
"""

from typing import Annotated

from pydantic import Field

from kaito.api.workspace.node_count import MAX_NODE_COUNT
from kaito.runtime.meta import Model


class WorkspaceSpec(Model):
    """Number of copies of the model."""

    replicas: (
        Annotated[int, Field(json_schema_extra={"minimum": 0, "maximum": MAX_NODE_COUNT, "format": "int32"})] | None
    ) = None
    """Number of copies of the model that run, instead of `resource.count`; 0 for no copies and no nodes. Written by
    `kubectl scale workspace` and by autoscalers. Admission sets it to `resource.count` when the Workspace is created,
    and when `resource.count` changes. Not for tuning."""
