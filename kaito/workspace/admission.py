"""Admission webhook of Workspaces.

Validates with the checks of `preflight` that need only the object, on create and update, adds the finalizer of the
controller to new Workspaces, and sets `spec.replicas` from `resource.count` (`models.copies`). It reads neither cluster
nor network. The controller does all of it again where necessary, because a Workspace may be stored while the webhook is
off. Warnings contain the planned nodes and, if a table contains it, their price.
"""

from typing import Final

from kaito.api import Workspace, labels
from kaito.models.copies import with_replicas
from kaito.prices.book import PriceBook
from kaito.runtime.webhook import Admission, Webhook
from kaito.workspace.plan_warnings import cost_findings, plan_warnings
from kaito.workspace.preflight import validate_workspace
from kaito.workspace.settings import WorkspaceSettings

VALIDATE_PATH: Final = "/validate/workspace.kaito.sh"
"""Path of the webhook in the ValidatingWebhookConfiguration of `config/webhook`, as in upstream Kaito."""

DEFAULT_PATH: Final = "/default/workspace.kaito.sh"
"""Path of the webhook in the MutatingWebhookConfiguration of `config/webhook`."""


def workspace_webhook(settings: WorkspaceSettings, prices: PriceBook | None = None) -> Webhook[Workspace]:
    """Returns the webhook. Deletions are allowed; an update is rejected only for violations that it introduces."""
    book = prices or PriceBook()

    async def review(admission: Admission[Workspace]) -> None:
        if admission.object is None:
            return
        for violation in validate_workspace(admission.object, admission.old, settings):
            if violation.severity == "error":
                admission.deny(violation.field, violation.message)
            else:
                admission.warn(str(violation))
        if not admission.problems:
            for finding in await cost_findings(admission.object, admission.old, settings, book):
                if finding.severity == "error":
                    admission.deny(finding.field, finding.message)
                else:
                    admission.warn(str(finding))
        if not admission.problems:
            for warning in await plan_warnings(admission.object, admission.old, settings, book):
                admission.warn(warning)

    def mutate(admission: Admission[Workspace]) -> Workspace:
        if admission.object is None:
            raise AssertionError  # pragma: no cover -- the framework does not call it for deletions
        return with_replicas(admission.object, admission.old)

    return Webhook(
        Workspace,
        mutate=mutate,
        validate=review,
        finalizer=labels.WORKSPACE_FINALIZER,
        mutate_path=DEFAULT_PATH,
        validate_path=VALIDATE_PATH,
    )
