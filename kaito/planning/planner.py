"""Plans one Workspace, or one of each InferenceSet, with or without a cluster."""

from dataclasses import replace

from kaito.api import InferenceSet, conditions
from kaito.models.admission import wrong_names
from kaito.planning.comparison import Change, LiveComparison, merged
from kaito.planning.documents import Documents, Source
from kaito.planning.reader import PlanReader
from kaito.planning.report import PlanReport, PriceQuestion, SetPlan, ask_price
from kaito.runtime.clock import Clock
from kaito.workspace.hub.reader import ModelReader
from kaito.workspace.hub.reads import ReadModel
from kaito.workspace.inference_sets.admission import validate_inference_set
from kaito.workspace.preflight import Finding
from kaito.workspace.preview import Observed, Preview, identified, preview
from kaito.workspace.settings import WorkspaceSettings


async def plan_workspace(
    source: Source,
    documents: Documents,
    settings: WorkspaceSettings,
    question: PriceQuestion,
    *,
    live: LiveComparison | None,
    clock: Clock,
    read_model: ReadModel | None = None,
) -> PlanReport:
    """Plans one Workspace. An unknown preset or instance type is refused before the cluster is read, because no right
    in the cluster changes that.

    Args:
        source: the Workspace as it was read.
        documents: the objects that it uses, as far as they were read with it.
        settings: settings of the controller.
        question: where to look up the price.
        live: the cluster to compare with; None without one.
        clock: the current time.
        read_model: reads the facts of models outside the catalog; by default from their artifact or Hugging Face.

    Raises:
        KaitoRuntimeError: the cluster cannot be read.
    """
    workspace, old, observed = identified(source.workspace), None, None
    if source.errors:
        errors = tuple(Finding(conditions.INVALID_SPEC, field, message) for field, message in source.errors)
        refused = Preview(workspace=workspace, errors=errors)
        return PlanReport(preview=refused, origin=source.origin, settings=settings, changes=())
    if live is not None and (misnamed := refused_by_name(source, settings)) is not None:
        return misnamed
    if live is not None:
        old = await live.stored(workspace)
        workspace = merged(workspace, old) if old is not None else workspace
        observed = await live.observe(workspace)
        question = replace(question, region=question.region or live.region)
    reader = PlanReader(
        documents,
        workspace.namespace,
        live.reader(workspace) if live is not None else None,
        read_model=read_model or ModelReader(settings.hub_endpoint).read,
    )
    priced = settings.model_copy(update={"region": question.region})
    found = await preview(
        workspace, priced, reader, now=clock.now(), old=old, observed=observed or Observed(), prices=question.book
    )
    if live is not None and not found.errors and (error := await live.admission_error(workspace, old)) is not None:
        found = Preview(workspace=found.workspace, errors=(error,), warnings=found.warnings)
    price = await ask_price(found, settings, question)
    changes = (
        await live.changes(found, old)
        if live is not None and found.plan is not None
        else [Change(action="create", object=each) for each in found.objects.all()]
    )
    rejected = _rejections(source.inference_set, settings, found)
    if rejected:
        found = Preview(workspace=found.workspace, errors=(*rejected, *found.errors), warnings=found.warnings)
    notes = [f"{what} was not checked: {why}" for what, why in reader.unknown.items()]
    notes += list(price.notes) if price is not None else []
    notes += live.notes if live is not None else []
    return PlanReport(
        preview=found,
        origin=source.origin,
        settings=settings,
        changes=changes,
        price=price,
        warnings=(*(_unknown_field(name, source) for name in source.unknown_fields), *found.warnings),
        notes=notes,
        inference_set=_set_plan(source.inference_set, found),
    )


def refused_by_name(source: Source, settings: WorkspaceSettings) -> PlanReport | None:
    """Returns the refusal of a Workspace whose preset or instance type does not exist; None if they exist."""
    if source.errors:
        return None
    found = wrong_names(source.workspace, node_api=settings.node_api.value, cloud=settings.cloud)
    if not found:
        return None
    refused = Preview(workspace=identified(source.workspace), errors=tuple(map(Finding.from_violation, found)))
    return PlanReport(preview=refused, origin=source.origin, settings=settings, changes=())


def _rejections(inference_set: InferenceSet | None, settings: WorkspaceSettings, found: Preview) -> tuple[Finding, ...]:
    """Returns why admission rejects the set, without what the plan of its Workspace already reports."""
    if inference_set is None:
        return ()
    known = {finding.message for finding in found.errors}
    return tuple(
        Finding(conditions.INVALID_SPEC, violation.field, violation.message)
        for violation in validate_inference_set(inference_set, None, settings)
        if violation.severity == "error" and violation.message not in known
    )


def _set_plan(inference_set: InferenceSet | None, found: Preview) -> SetPlan | None:
    """Returns how many Workspaces of the set are created, and their nodes."""
    if inference_set is None:
        return None
    replicas, limit = inference_set.spec.replicas, inference_set.spec.node_count_limit
    each = found.plan.hardware.count if found.plan is not None else 0
    workspaces = min(replicas, limit // each) if limit and each else replicas
    return SetPlan(
        namespace=inference_set.namespace,
        name=inference_set.name,
        replicas=replicas,
        workspaces=workspaces,
        nodes=workspaces * each,
    )


def _unknown_field(name: str, source: Source) -> Finding:
    kind = "a Workspace" if source.inference_set is None else "an InferenceSet"
    message = f"is not a field of {kind}: kubectl rejects it, and other clients drop it: correct or remove it"
    return Finding(conditions.INVALID_SPEC, name, message, "warning")
