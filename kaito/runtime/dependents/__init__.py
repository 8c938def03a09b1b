"""Dependents: the objects that an object of a kind needs, applied in stages, pruned when they are no longer declared.

    SITE = Dependents("site", ConfigMap, Deployment, Service)

    async def reconcile(request: Request[Site]) -> None:
        site = request.object
        result = await SITE.apply(
            request,
            configuration(site),
            Child(deployment(site), ready=rolled_out),
            service(site) if site.spec.port else None,
        )
        async with request.status() as status:
            status.set_condition(result.condition("Ready"))

    controller = SITE.watched_by(Controller(Site, reconcile))

Each argument is a stage: an object, a `Child`, or a list of them. A stage is applied when every child of the stages
before it is ready. Children are applied with `Api.ensure`, so that an unchanged one costs no request. Each carries the
label `runtime.kaito.dev/dependents`, in the same request that creates it: there is no inventory that a crash could
leave behind. An object that has the label, is controlled by the owner and is not declared any more is deleted;
`pruning` lists the conditions. `plan` shows what `apply` would change.
"""

from kaito.runtime.dependents.child import (
    Child as Child,
    Stage as Stage,
    completed as completed,
    has_condition as has_condition,
    rolled_out as rolled_out,
)
from kaito.runtime.dependents.declaration import Dependents as Dependents
from kaito.runtime.dependents.plan import (
    FieldChange as FieldChange,
    Plan as Plan,
    PlannedChange as PlannedChange,
)
from kaito.runtime.dependents.pruning import DEPENDENTS_LABEL as DEPENDENTS_LABEL
from kaito.runtime.dependents.result import ChildState as ChildState, DependentsResult as DependentsResult
