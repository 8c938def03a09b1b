"""Checks that need the object alone: fields, annotations and references, and preset and size by the catalog."""

from collections.abc import Iterable, Iterator

from kaito.api import Workspace
from kaito.api.workspace.validation import Policy, validate
from kaito.models.admission import check
from kaito.workspace.node_class import AZURE_GROUP, KAITO
from kaito.workspace.pod_options import mount_problems
from kaito.workspace.preflight.context import PreflightContext
from kaito.workspace.preflight.finding import Finding
from kaito.workspace.settings import NodeApi, WorkspaceSettings
from kaito.workspace.weights import preset_spec


def policy(settings: WorkspaceSettings) -> Policy:
    """Returns the settings that the rules of `kaito.api` depend on."""
    kind = settings.node_class.kind_on(settings.cloud)
    named = settings.node_api in {NodeApi.NODECLAIM, NodeApi.KARPENTER} and kind != KAITO
    return Policy(
        node_api=settings.node_api.value,
        in_cluster_data_urls=settings.allow_in_cluster_data_urls,
        named_node_classes=named,
        cloud=settings.cloud,
        region=settings.region,
        zones_need_region=named and kind.group == AZURE_GROUP and not settings.region,
    )


def rules(workspace: Workspace, settings: WorkspaceSettings) -> Iterator[Finding]:
    """Applies the rules of `kaito.api.workspace.validation`."""
    for violation in validate(workspace, policy=policy(settings)):
        yield Finding.from_violation(violation)


def mounts(workspace: Workspace, settings: WorkspaceSettings) -> Iterator[Finding]:
    """Checks that the mounts of `podOptions` name volumes."""
    found = preset_spec(workspace)
    if found is not None:
        spec, path = found
        for violation in mount_problems(spec.pod_options, f"{path}.podOptions", settings.pod_defaults):
            yield Finding.from_violation(violation)


async def catalog(ctx: PreflightContext) -> Iterable[Finding]:
    """Applies the rules of `kaito.models.admission`, without warnings, because the plan contains them."""
    settings = ctx.settings
    found = check(
        ctx.workspace,
        node_api=settings.node_api.value,
        cloud=settings.cloud,
        weights=settings.weights,
        preset=ctx.preset,
    )
    return [Finding.from_violation(violation) for violation in found if violation.severity == "error"]
