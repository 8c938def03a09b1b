"""The rules of a Workspace as a table of pure functions: fields only, no cluster, no catalog, no network.

`validate` is called by the admission webhook on create and update, and by the controller before it acts, because an
object may have been stored while the webhook was off. Most rules are in the CRD, too (schema and CEL), where the API
server enforces them alone; here the messages can say more. What needs the model catalog or the instance types is
in `kaito.models`; what needs the cluster is a condition.

An update reports only what it makes wrong, and an object that is being deleted passes whatever it says, so that its
finalizer can go.
"""

from typing import Final

from kaito.api.violation import Violation, introduced
from kaito.api.workspace.kind import Workspace
from kaito.api.workspace.validation import (
    annotations,
    immutability,
    inference,
    references,
    resource,
    tuning,
    workspace as whole,
)
from kaito.api.workspace.validation.policy import NodeApi as NodeApi, Policy as Policy, Rule as Rule

RULES: Final = (
    *whole.RULES,
    *resource.RULES,
    *inference.RULES,
    *tuning.RULES,
    *references.RULES,
    *annotations.RULES,
)
"""Rules about one state of a Workspace."""

TRANSITION_RULES: Final = immutability.RULES
"""Rules about what an update may change."""


def validate(workspace: Workspace, old: Workspace | None = None, *, policy: Policy) -> list[Violation]:
    """Every rule the object breaks; on update (`old` given) every rule the update breaks. Empty means valid.

    The order is that of the table, so messages are stable. Warnings are among the violations: see `severity`.
    """
    if workspace.deleting:
        return []
    found = [violation for rule in RULES for violation in rule.check(workspace, policy)]
    if old is None:
        return found
    before = [violation for rule in RULES for violation in rule.check(old, policy)]
    changes = [violation for rule in TRANSITION_RULES for violation in rule.check(old, workspace)]
    return [*changes, *introduced(before, found)]
