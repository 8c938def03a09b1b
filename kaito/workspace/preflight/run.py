"""Runs the table of checks: all of them, or those that need the object alone."""

from kaito.api import Workspace
from kaito.api.violation import Violation, introduced
from kaito.api.workspace.validation import validate
from kaito.models.admission import check
from kaito.models.errors import PlanError
from kaito.models.preset import Preset
from kaito.workspace.alternatives import SelectionInputs
from kaito.workspace.preflight import fields, template
from kaito.workspace.preflight.checks import CHECKS, ObjectCheck
from kaito.workspace.preflight.context import ClusterReader, LookupUnavailable, PreflightContext
from kaito.workspace.preflight.finding import Finding
from kaito.workspace.settings import WorkspaceSettings


async def run_checks(
    workspace: Workspace,
    settings: WorkspaceSettings,
    cluster: ClusterReader,
    selection: SelectionInputs | None = None,
) -> PreflightContext:
    """Runs the checks in order, up to the first one that finds an error.

    Args:
        workspace: the Workspace.
        settings: of the controller.
        cluster: reads the objects that the checks need.
        selection: what the choice of one of several instance types depends on; by default the first possible one.

    Raises:
        ApiError: the cluster could not be read.
    """
    ctx = PreflightContext(workspace, settings, cluster, selection or SelectionInputs())
    for check_ in CHECKS:
        try:
            if isinstance(check_, ObjectCheck):
                ctx.findings.extend(check_.find(workspace, settings))
            else:
                ctx.findings.extend(await check_.find(ctx))
        except PlanError as error:
            ctx.findings.append(Finding.from_plan_error(error))
        except LookupUnavailable:
            continue
        if ctx.errors:
            break
    return ctx


def validate_workspace(
    workspace: Workspace, old: Workspace | None, settings: WorkspaceSettings, *, preset: Preset | None = None
) -> list[Violation]:
    """Returns every violation and warning of a new Workspace, or that an update from `old` introduces.

    Runs the checks that need the object alone, and the rules about what an update may change. A Workspace that is being
    deleted has no violations.

    Args:
        workspace: the new Workspace.
        old: the stored one; None for a creation.
        settings: of the controller.
        preset: the model with more facts than the catalog has; None for that of the catalog.
    """
    if workspace.deleting:
        return []
    structure = _structure(workspace, settings)
    if old is not None:
        structure = introduced(_structure(old, settings), structure)
    return [
        *validate(workspace, old, policy=fields.policy(settings)),
        *structure,
        *check(
            workspace,
            old,
            node_api=settings.node_api.value,
            cloud=settings.cloud,
            weights=settings.weights,
            preset=preset,
        ),
    ]


def _structure(workspace: Workspace, settings: WorkspaceSettings) -> list[Violation]:
    found = (*template.structure(workspace, settings), *fields.mounts(workspace, settings))
    return [finding.violation() for finding in found]
