"""The result of a preflight check."""

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
    """What is wrong and the remedy: a clause that follows the path and a colon."""

    severity: Severity = "error"
    """A warning is reported and does not prevent a plan."""

    resolved_by: Literal["edit", "watch", "poll"] = "edit"
    """What can resolve it: an edit of the Workspace; a change of a watched object (nodes, ConfigMaps); or a change that
    must be polled for (Secrets, policies of the API server)."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"

    @classmethod
    def from_violation(cls, violation: Violation) -> Self:
        """Returns the finding for a violated rule."""
        return cls(conditions.INVALID_SPEC, violation.field, violation.message, violation.severity)

    @classmethod
    def from_plan_error(cls, error: PlanError) -> Self:
        """Returns the finding for a Workspace that cannot be planned."""
        return cls(error.reason, error.field, error.message)

    def violation(self) -> Violation:
        """Returns the violation for admission."""
        return Violation(self.field, self.message, self.severity)


def workload_field(workspace: Workspace) -> str:
    """Returns the path of the field from which the workload is rendered."""
    inference = workspace.inference
    if inference is None:
        return "tuning"
    return "inference" if inference.template is None else "inference.template"
