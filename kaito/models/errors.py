"""Errors of planning a model. Each error contains the field, the cause and the remedy.

    PlanError
    ├── UnknownPreset            the catalog does not contain the preset, or it was retired
    ├── TuningUnsupported        the preset exists, but cannot be tuned
    ├── UnknownInstanceType      the table does not contain the instance type
    ├── NoGpu                    the instance type has no supported GPU
    ├── RuntimeUnsupported       the requested runtime cannot serve the preset on the GPU
    ├── InvalidEngineOption      an engine setting is out of range, or not possible for the model or the node
    └── InstanceTypeTooSmall     the model does not fit into the GPU memory

The webhook rejects the Workspace, and the controller sets a condition with `reason`.
"""

from typing import ClassVar, Final

from kaito.api import conditions
from kaito.api.violation import Violation


class PlanError(Exception):
    """Base class of the errors."""

    reason: ClassVar[str] = conditions.INVALID_SPEC
    """Reason of the condition."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field: Final = field
        """Path of the Workspace's field that is to shortfall_error."""
        self.message: Final = message
        """What is wrong and the remedy: a clause that follows the path and a colon."""

    def violation(self) -> Violation:
        """Returns the violation for admission."""
        return Violation(self.field, self.message)


class UnknownPreset(PlanError):
    """The catalog does not contain the preset, or the preset was retired."""

    reason = conditions.UNKNOWN_PRESET


class TuningUnsupported(PlanError):
    """The preset cannot be tuned."""

    reason = conditions.UNKNOWN_PRESET


class UnknownInstanceType(PlanError):
    """The table does not contain the instance type."""

    reason = conditions.UNKNOWN_INSTANCE_TYPE


class NoGpu(PlanError):
    """The instance type has no GPU, or none that the images support."""

    reason = conditions.UNKNOWN_INSTANCE_TYPE


class RuntimeUnsupported(PlanError):
    """The requested runtime cannot serve the preset on the GPU."""


class InvalidEngineOption(PlanError):
    """An engine setting of the user's configuration is out of range, or not possible for the model or the node."""


class InstanceTypeTooSmall(PlanError):
    """The model does not fit into the instance type's GPU memory."""

    reason = conditions.INSTANCE_TYPE_TOO_SMALL
