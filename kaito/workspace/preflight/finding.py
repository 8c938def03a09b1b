"""What a check found wrong."""

from dataclasses import dataclass
from typing import Literal, Self, final

from kaito.api import Workspace, conditions
from kaito.api.violation import Severity, Violation
from kaito.models.errors import PlanError


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """One problem of a Workspace's input, with the remedy."""

    reason: str
    """CamelCase reason of the condition."""

    field: str
    """Path of the field as the user wrote it."""

    message: str
    """What is wrong and the remedy. A clause that reads well after the path and a colon."""

    severity: Severity = "error"
    """A warning is reported and does not stop the Workspace."""

    cure: Literal["edit", "watched", "polled"] = "edit"
    """What makes it go away: an edit of the Workspace; a change of an object that is watched (nodes, ConfigMaps); or a
    change that has to be polled for (Secrets, policies of the API server)."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"

    @classmethod
    def of(cls, violation: Violation, reason: str = conditions.INVALID_SPEC) -> Self:
        """A broken rule of the object."""
        return cls(reason, violation.field, violation.message, violation.severity)

    @classmethod
    def of_plan(cls, error: PlanError) -> Self:
        """A Workspace that cannot be planned."""
        return cls(error.reason, error.field, error.message)

    def violation(self) -> Violation:
        """The same for admission."""
        return Violation(self.field, self.message, self.severity)


def workload_field(workspace: Workspace) -> str:
    """Path of the field from which the workload is rendered."""
    inference = workspace.inference
    if inference is None:
        return "tuning"
    return "inference" if inference.template is None else "inference.template"
