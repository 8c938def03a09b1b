"""Collects the conditions and status fields that one reconcile of a claim sets, and writes them in one request.

A Machine names the stages differently and reports False where a NodeClaim reports Unknown; the steps use `StatusUpdate`
and need not know the kind.
"""

from dataclasses import dataclass, field, replace
from typing import Any, final

from kaito.api.karpenter import Claim, Machine, conditions
from kaito.runtime.client import ConditionUpdate, StatusScope
from kaito.runtime.meta import Condition, ConditionStatus, find_condition


@final
@dataclass(slots=True)
class StatusUpdate:
    """Changes of one claim's status."""

    claim: Claim
    conditions: dict[str, ConditionUpdate] = field(default_factory=dict[str, ConditionUpdate])
    """By type."""
    fields: dict[str, Any] = field(default_factory=dict[str, Any])

    def set_launched(self, status: ConditionStatus, reason: str = "", message: str = "") -> ConditionUpdate:
        """Sets the stage Launched. True: the instance is ready. False: its creation failed. Unknown: in progress."""
        return self.set_condition(ConditionUpdate(self.claim.stages.launched, status, reason, message))

    def set_registered(self, status: ConditionStatus, reason: str = "", message: str = "") -> ConditionUpdate:
        """Sets the stage Registered: the node has joined and has the claim's labels and taints."""
        return self.set_condition(ConditionUpdate(self.claim.stages.registered, self._pending(status), reason, message))

    def set_initialized(self, status: ConditionStatus, reason: str = "", message: str = "") -> ConditionUpdate:
        """Sets the stage Initialized: the node was Ready, without startup taints, and with its resources."""
        initialized = self.claim.stages.initialized
        return self.set_condition(ConditionUpdate(initialized, self._pending(status), reason, message))

    def set_node_ready(self, status: ConditionStatus, reason: str = "", message: str = "") -> ConditionUpdate:
        """Sets the condition that mirrors Ready of the node."""
        return self.set_condition(ConditionUpdate(conditions.NODE_READY, status, reason, message))

    def set_condition(self, update: ConditionUpdate) -> ConditionUpdate:
        """Sets a condition. One that is True has its type as reason and no message, as in Karpenter's operatorpkg."""
        if update.is_true:
            update = replace(update, reason=update.type, message="")
        self.conditions[update.type] = update
        return update

    def set_fields(self, **fields: Any) -> None:
        """Sets fields of the status, by their Python names."""
        self.fields |= fields

    def previous(self, condition_type: str) -> Condition | None:
        """The condition as it was before this reconcile."""
        return find_condition(self.claim.status.conditions, condition_type)

    def is_true(self, condition_type: str) -> bool:
        """Whether the condition is True, set by this reconcile or by an earlier one."""
        update = self.conditions.get(condition_type)
        if update is not None:
            return update.is_true
        condition = self.previous(condition_type)
        return condition is not None and condition.is_true

    def write(self, scope: StatusScope[Claim]) -> None:
        """Writes all changes, including stages that this reconcile did not evaluate and the root condition `Ready`."""
        for stage in self.claim.stages:
            if stage not in self.conditions and scope.find(stage) is None:
                message = "object is awaiting reconciliation"
                self.set_condition(ConditionUpdate.unknown(stage, conditions.AWAITING_RECONCILIATION, message))
        for update in self.conditions.values():
            scope.set_condition(update)
        if not self.claim.deleting:
            self._update_observed_generation(scope)
        scope.set_condition(self._ready(scope))
        if self.fields:
            scope.set(**self.fields)

    def _pending(self, status: ConditionStatus) -> ConditionStatus:
        return "False" if status == "Unknown" and isinstance(self.claim, Machine) else status

    def _update_observed_generation(self, scope: StatusScope[Claim]) -> None:
        """Marks stages that earlier reconciles decided as observed for the current generation."""
        generation = self.claim.metadata.generation
        for stage in self.claim.stages:
            present = scope.find(stage)
            if present is not None and present.status != "Unknown" and present.observed_generation != generation:
                scope.condition(stage, present.is_true, present.reason, present.message)

    def _ready(self, scope: StatusScope[Claim]) -> ConditionUpdate:
        stages = [condition for condition in map(scope.find, self.claim.stages) if condition is not None]
        if self.claim.deleting:
            return _ready_of_deleting(scope.find(conditions.INSTANCE_TERMINATING), stages)
        unhealthy = [condition for condition in stages if not condition.is_true]
        if unhealthy:
            machine = isinstance(self.claim, Machine)
            return _ready_of_machine(unhealthy) if machine else _ready_of_node_claim(unhealthy)
        node = scope.find(conditions.NODE_READY)
        if node is not None and not node.is_true:
            # Karpenter keeps Ready at True once all stages were reached. gpu-provisioner v0.2 updated it from the
            # node's heartbeat, and its users expect that a Ready claim has a usable node.
            return ConditionUpdate.false(conditions.READY, node.reason, node.message)
        return ConditionUpdate.true(conditions.READY, conditions.READY)


def _ready_of_deleting(terminating: Condition | None, stages: list[Condition]) -> ConditionUpdate:
    """Ready of a claim that is being deleted: False, with the error that blocks the deletion, or the failed stage."""
    if terminating is not None and terminating.status == "False":
        reason = terminating.reason or conditions.DELETION_FAILED
        return ConditionUpdate.false(conditions.READY, reason, terminating.message)
    cause = next((f"; {c.type}: {c.reason}: {c.message}" for c in stages if c.status == "False" and c.message), "")
    return ConditionUpdate.false(conditions.READY, conditions.TERMINATING, f"the claim is being deleted{cause}")


def _ready_of_node_claim(unhealthy: list[Condition]) -> ConditionUpdate:
    """operatorpkg's rule for NodeClaims: False if any stage is False, with the list of stages that are not True."""
    message = ", ".join(f"{condition.type}={condition.status}" for condition in unhealthy)
    if any(condition.status == "False" for condition in unhealthy):
        return ConditionUpdate.false(conditions.READY, conditions.UNHEALTHY_DEPENDENTS, message)
    return ConditionUpdate.unknown(conditions.READY, conditions.RECONCILING_DEPENDENTS, message)


def _ready_of_machine(unhealthy: list[Condition]) -> ConditionUpdate:
    """knative's rule for Machines: the first stage that is False, else the first that is not True."""
    first = next((condition for condition in unhealthy if condition.status == "False"), unhealthy[0])
    status: ConditionStatus = "False" if first.status == "False" else "Unknown"
    return ConditionUpdate(conditions.READY, status, first.reason, first.message)
