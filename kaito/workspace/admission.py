"""Admission of Workspaces: the rules that the CRD's schema and CEL cannot express, as one pure question.

The webhook server asks it on create and update. `steps.plan` asks the same rules again, because a Workspace may be
stored while the webhook is off. No cluster, no network: what only those know is a condition.
"""

from typing import Final

from kaito.api import Workspace
from kaito.api.violation import Violation
from kaito.api.workspace.validation import Policy, validate
from kaito.models.admission import check
from kaito.runtime.webhook import Admission, Webhook
from kaito.workspace.settings import WorkspaceSettings

VALIDATE_PATH: Final = "/validate/workspace.kaito.sh"
"""Where the ValidatingWebhookConfiguration of `config/webhook` sends its questions; upstream Kaito's path."""


def judge(workspace: Workspace, old: Workspace | None, settings: WorkspaceSettings) -> list[Violation]:
    """Every rule that creating the Workspace, or updating it from `old`, would break; warnings among them."""
    return [
        *validate(workspace, old, policy=Policy(node_api=settings.node_api.value)),
        *check(workspace, old, node_api=settings.node_api.value, cloud=settings.cloud),
    ]


def workspace_webhook(settings: WorkspaceSettings) -> Webhook[Workspace]:
    """The webhook that asks `judge`. Deletions pass; updates answer only for what they make wrong."""

    def review(admission: Admission[Workspace]) -> None:
        if admission.object is None:
            return
        for violation in judge(admission.object, admission.old, settings):
            if violation.severity == "error":
                admission.deny(violation.field, violation.message)
            else:
                admission.warn(str(violation))

    return Webhook(Workspace, validate=review, validate_path=VALIDATE_PATH)
