"""Computes how many nodes a Workspace of an InferenceSet needs, for `spec.nodeCountLimit`."""

from collections.abc import Iterable

from kaito.api import InferenceSet, Workspace, labels
from kaito.workspace.inference_sets.children import child_workspace, revision
from kaito.workspace.preflight import run_checks
from kaito.workspace.preflight.offline import ManifestReader
from kaito.workspace.preview import identified
from kaito.workspace.settings import WorkspaceSettings


async def nodes_per_workspace(
    inference_set: InferenceSet, settings: WorkspaceSettings, existing: Iterable[Workspace] = ()
) -> int | None:
    """Returns the number of nodes of a new Workspace; None if it is not known yet.

    It is known from the Workspaces with the same template, and else from the template alone, unless a ConfigMap or the
    facts of a model outside the catalog may change it.
    """
    current = revision(inference_set)
    observed = [
        workspace.status.target_node_count
        for workspace in existing
        if workspace.labels.get(labels.INFERENCESET_REVISION) == current
    ]
    if known := max(observed, default=0):
        return known
    child = identified(child_workspace(inference_set, f"{inference_set.name}-0"))
    if child.inference is None or child.inference.config:
        return None
    checked = await run_checks(child, settings, ManifestReader())
    return None if checked.errors or checked.plan is None else checked.plan.hardware.count
