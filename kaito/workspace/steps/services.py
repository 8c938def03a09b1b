"""Step: the two Services of an inference Workspace, before its pods look for each other."""

from kaito.runtime.kinds import Service
from kaito.workspace.context import Pass
from kaito.workspace.manifests.service import client_service, headless_service
from kaito.workspace.steps.guards import foreign, unless_refused


async def ensure(run: Pass) -> None:
    """Apply both Services once a workload may be placed; a Service of another owner is left unchanged and reported."""
    if run.plan is None or run.workspace.inference is None or not run.placeable:
        return
    for service in (client_service(run.workspace), headless_service(run.workspace)):
        present = await run.api.find(Service, service.name, service.namespace)
        if present is not None and foreign(run, present):
            continue
        await unless_refused(run, f"Service {service.name}", run.api.ensure(service, owner=run.workspace))
