"""Checks of fields, annotations and references, and of presets and sizes by the catalog: the object alone."""

from collections.abc import Iterator

from kaito.api import Workspace
from kaito.api.workspace.validation import Policy, validate
from kaito.models.admission import check
from kaito.workspace.preflight.finding import Finding
from kaito.workspace.settings import WorkspaceSettings


def policy(settings: WorkspaceSettings) -> Policy:
    """What the rules of `kaito.api` depend on."""
    return Policy(node_api=settings.node_api.value, in_cluster_data_urls=settings.allow_in_cluster_data_urls)


def rules(workspace: Workspace, settings: WorkspaceSettings) -> Iterator[Finding]:
    """The rules of `kaito.api.workspace.validation`."""
    for violation in validate(workspace, policy=policy(settings)):
        yield Finding.of(violation)


def catalog(workspace: Workspace, settings: WorkspaceSettings) -> Iterator[Finding]:
    """The rules of `kaito.models.admission`. Their warnings are those of the plan, which has them already."""
    for violation in check(workspace, node_api=settings.node_api.value, cloud=settings.cloud):
        if violation.severity == "error":
            yield Finding.of(violation)
