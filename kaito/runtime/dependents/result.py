"""The result of applying dependents: the state of each child, and a condition made from all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kaito.runtime.client import ConditionUpdate
from kaito.runtime.meta import ObjectKey, Resource

Phase = Literal["ready", "not ready", "waiting", "skipped"]


@dataclass(frozen=True, slots=True)
class ChildState:
    """One child after `apply`."""

    kind: str
    key: ObjectKey
    phase: Phase
    """`waiting`: not applied, because an earlier stage is not ready. `skipped`: its optional kind is not served."""
    message: str = ""
    object: Resource | None = None
    """The current object, if it was applied."""

    def __str__(self) -> str:
        text = f"{self.kind} {self.key} is {self.phase}"
        return f"{text}: {self.message}" if self.message else text


@dataclass(frozen=True, slots=True)
class DependentsResult:
    """All children of one object after `apply`."""

    children: Sequence[ChildState]
    """In the order of their declaration."""
    pruned: Sequence[tuple[str, ObjectKey]] = ()
    """Kind and key of the dependents whose deletion was requested."""

    @property
    def ready(self) -> bool:
        """Whether every child was applied and is ready; skipped ones do not count."""
        return all(child.phase in {"ready", "skipped"} for child in self.children)

    @property
    def message(self) -> str:
        """What is not ready; empty if everything is."""
        return "; ".join(str(child) for child in self.children if child.phase == "not ready")

    def condition(
        self, condition_type: str = "Ready", *, ready: str = "AllReady", not_ready: str = "Progressing"
    ) -> ConditionUpdate:
        """Returns a condition: True if everything is ready, else False with what is not.

        Args:
            condition_type: type of the condition.
            ready: its reason if everything is ready.
            not_ready: its reason otherwise.
        """
        if self.ready:
            return ConditionUpdate.true(condition_type, ready)
        return ConditionUpdate.false(condition_type, not_ready, self.message)
