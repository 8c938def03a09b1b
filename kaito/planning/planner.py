"""Plans one Workspace, with or without a cluster."""

from dataclasses import replace

from kaito.api import conditions
from kaito.planning.comparison import Change, LiveComparison, merged
from kaito.planning.documents import Documents, Source
from kaito.planning.reader import PlanReader
from kaito.planning.report import PlanReport, PriceQuestion, ask_price
from kaito.runtime.clock import Clock
from kaito.workspace.hub.reader import ModelReader
from kaito.workspace.hub.reads import ReadModel
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
    """Plans one Workspace.

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
    notes = [f"{what} was not checked: {why}" for what, why in reader.unknown.items()]
    notes += list(price.notes) if price is not None else []
    notes += live.notes if live is not None else []
    return PlanReport(
        preview=found,
        origin=source.origin,
        settings=settings,
        changes=changes,
        price=price,
        warnings=(*map(_unknown_field, source.unknown_fields), *found.warnings),
        notes=notes,
    )


def _unknown_field(name: str) -> Finding:
    message = "is not a field of a Workspace: kubectl rejects it, and other clients drop it: correct or remove it"
    return Finding(conditions.INVALID_SPEC, name, message, "warning")
