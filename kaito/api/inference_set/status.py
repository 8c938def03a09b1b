"""`status` of an InferenceSet: the state that its controller observed."""

from typing import Annotated

from pydantic import Field

from kaito.api.workspace.scaling import AutoscalingStatus
from kaito.runtime.meta import Condition, Model, Time

_Count = Annotated[int, Field(json_schema_extra={"format": "int32"})]


class AutoUpgradeStatus(Model):
    """Progress of upgrades to a new release of the controller."""

    num_drifted_workspaces: _Count | None = None
    """Number of Workspaces with the images of another release."""

    last_successful_upgrade_time: Time | None = None
    """When the last upgrade of all Workspaces ended."""


class InferenceSetStatus(Model):
    """Observed state."""

    observed_generation: int = 0
    """Generation of the InferenceSet that this status describes."""

    replicas: _Count = 0
    """Number of Workspaces that exist and are not being deleted."""

    ready_replicas: _Count = 0
    """Number of Workspaces that serve requests."""

    updated_replicas: _Count = 0
    """Number of Workspaces that have the current template."""

    node_count: _Count = 0
    """Number of nodes that the Workspaces need, also those that are being deleted."""

    selector: str = ""
    """Label selector of the pods that serve requests, for autoscalers."""

    conditions: list[Condition] = Field(default_factory=list[Condition])
    """InferenceSetReady, InferenceSetUpdated and InferenceSetDeleting, each with reason and message."""

    autoscaling: AutoscalingStatus | None = None
    """The last decision of the autoscaler; absent without `spec.autoscaling`."""

    auto_upgrade: AutoUpgradeStatus | None = None
    """Progress of automatic upgrades; absent unless they are enabled."""
