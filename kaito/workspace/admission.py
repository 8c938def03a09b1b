"""Admission of Workspaces: the checks of `preflight` that need the object alone.

The webhook server runs them on create and update. The controller runs them again, because a Workspace may be stored
while the webhook is off. No cluster, no network: what only those know is a condition.
"""

from typing import Final

from kaito.api import Workspace
from kaito.runtime.webhook import Admission, Webhook
from kaito.workspace.preflight import judge
from kaito.workspace.settings import WorkspaceSettings

VALIDATE_PATH: Final = "/validate/workspace.kaito.sh"
"""Where the ValidatingWebhookConfiguration of `config/webhook` sends its questions; upstream Kaito's path."""

__all__ = ["VALIDATE_PATH", "judge", "workspace_webhook"]


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
