"""What one pass says about a claim: stages, their root `Ready`, and the fields of the status.

Steps tell the report; `write` puts it on the claim's latest version at the end of the pass, in one request. A Machine
spells the stages differently and says False where a NodeClaim says Unknown: the difference lives only here.
"""

from dataclasses import dataclass, field
from typing import Any, final

from kaito.api.karpenter import Claim, Machine, conditions
from kaito.runtime.client import StatusScope
from kaito.runtime.meta import Condition, ConditionStatus, find_condition


@dataclass(frozen=True, slots=True)
class Statement:
    """A condition as a step wants it."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""


@final
@dataclass(slots=True)
class Report:
    """Collects statements about one claim."""

    claim: Claim
    statements: dict[str, Statement] = field(default_factory=dict[str, Statement])
    fields: dict[str, Any] = field(default_factory=dict[str, Any])

    def launched(self, status: ConditionStatus, reason: str = "", message: str = "") -> None:
        """The instance exists; False: creating it failed; Unknown: it is on its way."""
        self._say(self.claim.stages.launched, status, reason, message)

    def registered(self, status: ConditionStatus, reason: str = "", message: str = "") -> None:
        """Its node has joined and carries what the claim asks for."""
        self._say(self.claim.stages.registered, self._pending(status), reason, message)

    def initialized(self, status: ConditionStatus, reason: str = "", message: str = "") -> None:
        """The node has become usable: Ready once, startup taints gone, resources there."""
        self._say(self.claim.stages.initialized, self._pending(status), reason, message)

    def node_ready(self, status: ConditionStatus, reason: str = "", message: str = "") -> None:
        """How the node is now."""
        self._say(conditions.NODE_READY, status, reason, message)

    def say(self, condition_type: str, status: ConditionStatus, reason: str = "", message: str = "") -> None:
        """Any other condition."""
        self._say(condition_type, status, reason, message)

    def set(self, **fields: Any) -> None:
        """Fields of the status."""
        self.fields |= fields

    def condition(self, condition_type: str) -> Condition | None:
        """The condition the claim had before this pass."""
        return find_condition(self.claim.status.conditions, condition_type)

    def holds(self, condition_type: str) -> bool:
        """Whether the condition is True, by this pass or an earlier one."""
        said = self.statements.get(condition_type)
        if said is not None:
            return said.status == "True"
        condition = self.condition(condition_type)
        return condition is not None and condition.is_true

    def write(self, scope: StatusScope[Claim]) -> None:
        """Put everything into the claim's status, the stages nobody spoke of and the root included."""
        for stage in self.claim.stages:
            if stage not in self.statements and scope.find(stage) is None:
                self._say(stage, "Unknown", conditions.AWAITING_RECONCILIATION, "object is awaiting reconciliation")
        for said in self.statements.values():
            scope.condition(said.type, _holds(said.status), said.reason, said.message)
        if not self.claim.deleting:
            self._refresh(scope)
        root = self._root(scope)
        scope.condition(root.type, _holds(root.status), root.reason, root.message)
        if self.fields:
            scope.set(**self.fields)

    def _say(self, condition_type: str, status: ConditionStatus, reason: str, message: str) -> None:
        if status == "True":
            reason, message = condition_type, ""  # operatorpkg: a condition that holds is its own reason
        self.statements[condition_type] = Statement(condition_type, status, reason, message)

    def _pending(self, status: ConditionStatus) -> ConditionStatus:
        return "False" if status == "Unknown" and isinstance(self.claim, Machine) else status

    def _refresh(self, scope: StatusScope[Claim]) -> None:
        """Stages decided in an earlier pass are decided for this generation, too."""
        generation = self.claim.metadata.generation
        for stage in self.claim.stages:
            present = scope.find(stage)
            if present is not None and present.status != "Unknown" and present.observed_generation != generation:
                scope.condition(stage, present.is_true, present.reason, present.message)

    def _root(self, scope: StatusScope[Claim]) -> Statement:
        stages = [condition for condition in map(scope.find, self.claim.stages) if condition is not None]
        if self.claim.deleting:
            return _leaving(scope.find(conditions.INSTANCE_TERMINATING), stages)
        unhealthy = [condition for condition in stages if not condition.is_true]
        if unhealthy:
            return _unhealthy_machine(unhealthy) if isinstance(self.claim, Machine) else _unhealthy(unhealthy)
        node = scope.find(conditions.NODE_READY)
        if node is not None and not node.is_true:
            # Karpenter leaves Ready alone once it was True; gpu-provisioner v0.2's heartbeat did not, and people rely
            # on a Ready claim being a usable one.
            return Statement(conditions.READY, "False", node.reason, node.message)
        return Statement(conditions.READY, "True", conditions.READY)


def _holds(status: ConditionStatus) -> bool | None:
    return {"True": True, "False": False}.get(status)


def _leaving(ending: Condition | None, stages: list[Condition]) -> Statement:
    """Ready of a claim that is being deleted: False, with what blocks the deletion or the failure before it."""
    if ending is not None and ending.status == "False":
        return Statement(conditions.READY, "False", ending.reason or conditions.DELETION_FAILED, ending.message)
    cause = next((f"; {c.type}: {c.reason}: {c.message}" for c in stages if c.status == "False" and c.message), "")
    return Statement(conditions.READY, "False", conditions.TERMINATING, f"the claim is being deleted{cause}")


def _unhealthy(found: list[Condition]) -> Statement:
    """operatorpkg's rule for NodeClaims: False when any stage is, and the list of what is missing."""
    message = ", ".join(f"{condition.type}={condition.status}" for condition in found)
    if any(condition.status == "False" for condition in found):
        return Statement(conditions.READY, "False", conditions.UNHEALTHY_DEPENDENTS, message)
    return Statement(conditions.READY, "Unknown", conditions.RECONCILING_DEPENDENTS, message)


def _unhealthy_machine(found: list[Condition]) -> Statement:
    """knative's rule for Machines: the first stage in trouble speaks for the root."""
    first = next((condition for condition in found if condition.status == "False"), found[0])
    status: ConditionStatus = "False" if first.status == "False" else "True" if first.status == "True" else "Unknown"
    return Statement(conditions.READY, status, first.reason, first.message)
