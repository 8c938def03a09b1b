"""Validation rules of a Workspace as a table of pure functions of its fields.

The admission webhook calls `validate` on create and update. The controller calls it in each reconcile, because an
object may be stored while the webhook is off. The CRD contains most rules as well (schema and CEL); the messages here
contain more detail. Rules that need the model catalog or the instance types are in `kaito.models`, and checks that need
the cluster are in `kaito.workspace.preflight`.

An update reports only the violations that it introduces. An object that is being deleted has no violations, so that its
finalizer can be removed.
"""

from typing import Final

from kaito.api.violation import Violation, introduced
from kaito.api.workspace.kind import Workspace
from kaito.api.workspace.validation import (
    annotations,
    immutability,
    inference,
    pod_options,
    references,
    resource,
    tuning,
    workspace as workspace_rules,
)
from kaito.api.workspace.validation.policy import NodeApi as NodeApi, Policy as Policy, Rule as Rule

RULES: Final = (
    *workspace_rules.RULES,
    *resource.RULES,
    *inference.RULES,
    *tuning.RULES,
    *references.RULES,
    *pod_options.RULES,
    *annotations.RULES,
)
"""Rules for one state of a Workspace."""

TRANSITION_RULES: Final = immutability.RULES
"""Rules for the changes of an update."""


def validate(workspace: Workspace, old: Workspace | None = None, *, policy: Policy) -> list[Violation]:
    """Returns the violations of an object, or those that an update from `old` introduces, in the order of the table.

    The violations include warnings; see `Violation.severity`.
    """
    if workspace.deleting:
        return []
    found = [violation for rule in RULES for violation in rule.check(workspace, policy)]
    if old is None:
        return found
    before = [violation for rule in RULES for violation in rule.check(old, policy)]
    changes = [violation for rule in TRANSITION_RULES for violation in rule.check(old, workspace)]
    return [*changes, *introduced(before, found)]
