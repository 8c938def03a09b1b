"""Runs the table of checks: all of it, or the part that needs the object alone."""

from kaito.api import Workspace
from kaito.api.violation import Violation, introduced
from kaito.api.workspace.validation import validate
from kaito.models.admission import check
from kaito.models.errors import PlanError
from kaito.workspace.preflight import fields, template
from kaito.workspace.preflight.checks import CHECKS, ObjectCheck
from kaito.workspace.preflight.examination import Cluster, Examination, Unknown
from kaito.workspace.preflight.finding import Finding
from kaito.workspace.settings import WorkspaceSettings


async def examine(workspace: Workspace, settings: WorkspaceSettings, cluster: Cluster) -> Examination:
    """Run the checks in order, up to the first one that finds an error.

    Raises:
        ApiError: the cluster could not be asked.
    """
    examination = Examination(workspace, settings, cluster)
    for each in CHECKS:
        try:
            if isinstance(each, ObjectCheck):
                examination.findings.extend(each.find(workspace, settings))
            else:
                examination.findings.extend(await each.find(examination))
        except PlanError as error:
            examination.findings.append(Finding.of_plan(error))
        except Unknown:
            continue
        if examination.errors:
            break
    return examination


def judge(workspace: Workspace, old: Workspace | None, settings: WorkspaceSettings) -> list[Violation]:
    """Everything that creating the Workspace, or updating it from `old`, would make wrong; warnings among it.

    The checks of the table that need the object alone, with the rules about what an update may change. An update
    reports only what it makes wrong, and a Workspace that is being deleted passes.
    """
    if workspace.deleting:
        return []
    structure = [finding.violation() for finding in template.structure(workspace, settings)]
    if old is not None:
        structure = introduced((finding.violation() for finding in template.structure(old, settings)), structure)
    return [
        *validate(workspace, old, policy=fields.policy(settings)),
        *structure,
        *check(workspace, old, node_api=settings.node_api.value, cloud=settings.cloud),
    ]
