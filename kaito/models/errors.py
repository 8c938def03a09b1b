"""Why a model cannot run as asked. One tree; each error names the field, the fact and the remedy.

    PlanError
    ├── UnknownPreset            no such name in the catalog (or it was retired)
    ├── TuningUnsupported        the preset exists, but cannot be tuned
    ├── UnknownInstanceType      no such name in the table
    ├── NoGpu                    the instance type has no GPU that we can use
    ├── RuntimeUnsupported       the runtime asked for cannot serve this preset on this GPU
    ├── InvalidEngineOption      a setting of the engine is out of range, or the model or the node cannot have it
    └── InstanceTypeTooSmall     the model does not fit

The webhook turns them into refusals, the controller into a condition with `reason`.
"""

from typing import ClassVar, Final

from kaito.api import conditions
from kaito.api.violation import Violation


class PlanError(Exception):
    """Root of the tree."""

    reason: ClassVar[str] = conditions.INVALID_SPEC
    """The condition's reason."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field: Final = field
        """Path of the Workspace's field that is to shortfall_error."""
        self.message: Final = message
        """What is wrong and the remedy; reads well after the path and a colon."""

    def violation(self) -> Violation:
        """The same as a broken rule, for admission."""
        return Violation(self.field, self.message)


class UnknownPreset(PlanError):
    """The catalog has no such preset, or has it as retired."""

    reason = conditions.UNKNOWN_PRESET


class TuningUnsupported(PlanError):
    """The preset has no tuning support."""

    reason = conditions.UNKNOWN_PRESET


class UnknownInstanceType(PlanError):
    """The table has no such instance type."""

    reason = conditions.UNKNOWN_INSTANCE_TYPE


class NoGpu(PlanError):
    """The instance type has no GPU, or none that the images can use."""

    reason = conditions.UNKNOWN_INSTANCE_TYPE


class RuntimeUnsupported(PlanError):
    """The runtime asked for cannot serve the preset on that GPU."""


class InvalidEngineOption(PlanError):
    """A setting of the engine in the user's configuration is out of range, or the model or node cannot have it."""


class InstanceTypeTooSmall(PlanError):
    """The model does not fit into the instance type's GPU memory."""

    reason = conditions.INSTANCE_TYPE_TOO_SMALL
