"""Judges an InferenceSet: its own fields, and the Workspace that its template describes, by the rules of Workspaces.

The webhook reads neither cluster nor network. The controller applies the same rules, because a set may be stored while
the webhook is off.
"""

from collections.abc import Iterator
from typing import Final

from kaito.api import InferenceSet, Workspace
from kaito.api.inference_set.template import template_annotations
from kaito.api.inference_set.validation import violations
from kaito.api.violation import Violation, introduced
from kaito.models.copies import slices_of_set
from kaito.prices.book import PriceBook
from kaito.runtime.webhook import Admission, Webhook
from kaito.workspace.inference_sets.children import child_workspace
from kaito.workspace.inference_sets.nodes import nodes_per_workspace
from kaito.workspace.plan_warnings import cost_findings, plan_warnings
from kaito.workspace.preflight import Finding, validate_workspace
from kaito.workspace.settings import NodeApi, WorkspaceSettings

VALIDATE_PATH: Final = "/validate/inferenceset.kaito.sh"
"""Path of the webhook in the ValidatingWebhookConfiguration of `config/webhook`, as in upstream Kaito."""

_LIMIT: Final = "spec.nodeCountLimit"
_ALTERNATIVES: Final = "spec.template.resource.instanceTypes"
_ANNOTATION: Final = "metadata.annotations["


def inference_set_webhook(settings: WorkspaceSettings, prices: PriceBook | None = None) -> Webhook[InferenceSet]:
    """Returns the webhook. Deletions are allowed; an update is rejected only for violations that it introduces."""
    book = prices or PriceBook()

    async def review(admission: Admission[InferenceSet]) -> None:
        if admission.object is None or admission.object.deleting:
            return
        found = validate_inference_set(admission.object, admission.old, settings)
        limit = await _check_node_limit(admission.object, settings)
        if admission.old is not None:
            limit = introduced(await _check_node_limit(admission.old, settings), limit)
        found += limit
        for violation in found:
            if violation.severity == "error":
                admission.deny(violation.field, violation.message)
            else:
                admission.warn(str(violation))
        if not admission.problems:
            for finding in await _cost_findings(admission.object, admission.old, settings, book):
                if finding.severity == "error":
                    admission.deny(f"spec.template.{finding.field}", finding.message)
                else:
                    admission.warn(f"spec.template.{finding}")
        if not admission.problems:
            for warning in await _plan_warnings(admission.object, admission.old, settings, book):
                admission.warn(warning)

    return Webhook(InferenceSet, validate=review, validate_path=VALIDATE_PATH)


def validate_inference_set(
    inference_set: InferenceSet, old: InferenceSet | None, settings: WorkspaceSettings
) -> list[Violation]:
    """Returns every violation and warning of a new InferenceSet, or those that an update from `old` introduces."""
    if inference_set.deleting:
        return []
    found = _violations(inference_set, settings)
    return found if old is None else introduced(_violations(old, settings), found)


def _violations(inference_set: InferenceSet, settings: WorkspaceSettings) -> list[Violation]:
    child = child_workspace(inference_set, f"{inference_set.name}-0")
    of_child = (_located(violation, inference_set) for violation in validate_workspace(child, None, settings))
    own = [*violations(inference_set), *_different_slices(inference_set, settings)]
    return [*own, *(violation for violation in of_child if violation is not None)]


def _different_slices(inference_set: InferenceSet, settings: WorkspaceSettings) -> Iterator[Violation]:
    """Reports alternatives whose nodes have different numbers of slices: some would be paid for and not used, because
    the copies of a Workspace are chosen before its instance type."""
    slices = slices_of_set(inference_set) if settings.node_api is not NodeApi.BYO else {}
    partition = inference_set.spec.template.resource.partition
    if partition is not None and len(set(slices.values())) > 1:
        found = ", ".join(f"{name} {number}" for name, number in slices.items())
        message = (
            f"have different numbers of slices with the profile {partition.profile} ({found}), and each Workspace of "
            "the set has a copy on every slice of its node: name instance types with the same number"
        )
        yield Violation(_ALTERNATIVES, message)


def _located(violation: Violation, inference_set: InferenceSet) -> Violation | None:
    """Returns the violation of a Workspace at the field of the set that determines it; None if the set has none."""
    field = violation.field
    if field.startswith(("metadata.name", "resource.count")):
        return None
    if field.startswith("resource.labelSelector"):
        field = f"spec.labelSelector{field.removeprefix('resource.labelSelector')}"
    elif field.startswith(_ANNOTATION):
        key = field.removeprefix(_ANNOTATION).partition("]")[0]
        field = f"spec.template.{field}" if key in template_annotations(inference_set) else field
    else:
        field = f"spec.template.{field}"
    return Violation(field, violation.message, violation.severity)


async def _check_node_limit(inference_set: InferenceSet, settings: WorkspaceSettings) -> list[Violation]:
    """Checks that the limit allows one Workspace; that it does not allow all of them is a warning."""
    limit, replicas = inference_set.spec.node_count_limit, inference_set.spec.replicas
    each = await nodes_per_workspace(inference_set, settings) if limit else None
    if each is None:
        return []
    if each > limit:
        message = f"is {limit}, and one workspace needs {each} nodes: raise it, or use a larger instance type"
        return [Violation(_LIMIT, message)]
    if each * replicas > limit:
        created = f"only {limit // each} {'is' if limit // each == 1 else 'are'} created"
        message = f"is {limit}, and {replicas} workspaces need {each * replicas} nodes: {created}"
        return [Violation(_LIMIT, message, "warning")]
    return []


async def _cost_findings(
    inference_set: InferenceSet, old: InferenceSet | None, settings: WorkspaceSettings, prices: PriceBook
) -> list[Finding]:
    """Returns why the nodes of each Workspace are beyond `maxHourlyCost` of the template."""
    before = child_workspace(old, f"{old.name}-0") if old is not None else None
    return await cost_findings(child_workspace(inference_set, f"{inference_set.name}-0"), before, settings, prices)


async def _plan_warnings(
    inference_set: InferenceSet, old: InferenceSet | None, settings: WorkspaceSettings, prices: PriceBook
) -> list[str]:
    """Returns the nodes and the price of all Workspaces together, unless an update does not change them."""
    if not inference_set.spec.replicas:
        return []
    before = await _with_all_copies(old, settings) if old is not None and old.spec.replicas else None
    found = await plan_warnings(await _with_all_copies(inference_set, settings), before, settings, prices)
    return [
        f"spec: {warning.removeprefix('resource: ')}"
        if warning.startswith("resource: ")
        else f"spec.template.{warning}"
        for warning in found
    ]


async def _with_all_copies(inference_set: InferenceSet, settings: WorkspaceSettings) -> Workspace:
    """Returns a Workspace with as many copies as the Workspaces of the set together, which needs the same nodes.

    Workspaces beyond `nodeCountLimit` are not created, and do not count. The limit of the cost is that of each
    Workspace, and not of all of them.
    """
    child = child_workspace(inference_set, f"{inference_set.name}-0")
    resource = child.resource.evolve(max_hourly_cost=None)
    limit, replicas = inference_set.spec.node_count_limit, inference_set.spec.replicas
    each = await nodes_per_workspace(inference_set, settings) if limit else None
    created = min(replicas, limit // each) if each else replicas
    copies = created * (child.spec.replicas or 1)
    return child.evolve(spec=child.spec.evolve(replicas=copies), resource=resource)
