"""Admission of Workspaces: the rules that the CRD's schema and CEL cannot express, as one pure question.

The webhook server asks it on create and update. The same rules are asked again by `steps.plan`, because a Workspace
may be stored while the webhook is off. No cluster, no network: what only those know is a condition.
"""

from dataclasses import dataclass
from typing import final

from kaito.api import Workspace
from kaito.api.workspace.validation import Policy, validate
from kaito.models.admission import check
from kaito.workspace.settings import WorkspaceSettings


@final
@dataclass(frozen=True, slots=True)
class Judgement:
    """The answer to one request."""

    errors: tuple[str, ...]
    """Why it is refused, each with the field and the remedy; empty admits it."""
    warnings: tuple[str, ...]
    """What the user is told either way."""


def judge(workspace: Workspace, old: Workspace | None, settings: WorkspaceSettings) -> Judgement:
    """Judge a Workspace as created, or as updated from `old`."""
    found = [
        *validate(workspace, old, policy=Policy(node_api=settings.node_api.value)),
        *check(workspace, old, node_api=settings.node_api.value, cloud=settings.cloud),
    ]
    return Judgement(
        errors=tuple(str(violation) for violation in found if violation.severity == "error"),
        warnings=tuple(str(violation) for violation in found if violation.severity == "warning"),
    )
