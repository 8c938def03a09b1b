"""Holds changes of pods that come from the controller and not from the user, for Workspaces of InferenceSets.

A new release of the controller, or a changed flag, renders other pods. A Workspace without a set gets them at once. The
Workspaces of a set would all restart together, so that each keeps its StatefulSet and reports the change in
`status.pendingTemplate`, until its set permits it with the annotation `kaito.sh/upgrade-to`. A change by the user is
applied at once; it was permitted when the set applied it.
"""

from kaito.api import Workspace, labels
from kaito.runtime.kinds import StatefulSet
from kaito.workspace.digest import digest
from kaito.workspace.ownership import inference_set_name
from kaito.workspace.plan import Plan


def inputs_annotation(workspace: Workspace, plan: Plan) -> dict[str, str]:
    """Returns the annotation with the digest of what the user determines; none for a Workspace without a set."""
    if not inference_set_name(workspace):
        return {}
    revision = workspace.labels.get(labels.INFERENCESET_REVISION, "")
    return {labels.INPUTS_HASH: digest([revision, plan.config_hash, plan.hardware.copies])}


def held_template(workspace: Workspace, present: StatefulSet | None, wanted: StatefulSet) -> str:
    """Returns the digest of the template that must not be applied yet; empty if it may be applied."""
    if present is None or not inference_set_name(workspace):
        return ""
    template = wanted.annotations.get(labels.TEMPLATE_HASH, "")
    before = present.annotations.get(labels.INPUTS_HASH)
    is_same = before is not None and before == wanted.annotations.get(labels.INPUTS_HASH)
    if not is_same or template == present.annotations.get(labels.TEMPLATE_HASH):
        return ""
    return "" if workspace.annotations.get(labels.UPGRADE_TO) == template else template
