"""Checks of the workload as a whole: it can be rendered, and the API server takes it."""

from collections.abc import Iterable

from pydantic import ValidationError

from kaito.api import conditions
from kaito.workspace.manifests.inference import inference_statefulset
from kaito.workspace.manifests.tuning import tuning_job
from kaito.workspace.preflight.examination import Examination
from kaito.workspace.preflight.finding import Finding, workload_field


async def render(examination: Examination) -> Iterable[Finding]:
    """The StatefulSet or Job can be built from what the user wrote."""
    workspace, plan = examination.workspace, examination.plan
    if plan is None:
        return ()
    try:
        if workspace.tuning is not None:
            examination.workload = tuning_job(workspace, plan, examination.settings)
        else:
            examination.workload = inference_statefulset(workspace, plan, examination.settings)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        return (Finding(conditions.WORKLOAD_REFUSED, workload_field(workspace), f"{path}: {first['msg']}"),)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        return (Finding(conditions.WORKLOAD_REFUSED, workload_field(workspace), f"cannot be rendered: {error}"),)
    return ()


async def dry_run(examination: Examination) -> Iterable[Finding]:
    """The API server would take the workload."""
    if examination.workload is None:
        return ()
    refusal = await examination.cluster.refusal(examination.workload)
    return () if refusal is None else (refusal,)
