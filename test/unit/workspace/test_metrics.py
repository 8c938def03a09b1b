"""Metrics of Workspaces."""

from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from kaito.api import Workspace
from kaito.workspace.figures import phase
from kaito.workspace.metrics import WorkspaceMetrics

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster


async def test_phases_presets_and_claims_are_counted(cluster: "Cluster", phi: Workspace) -> None:
    cluster.apply(phi)
    manager = cluster.controller()
    async with manager:
        await cluster.until_serving()
        text = generate_latest(manager.metrics.registry).decode()
    kind = cluster.kind.kind
    assert 'kaito_workspaces{phase="succeeded"} 1.0' in text
    assert 'kaito_workspaces{phase="pending"} 0.0' in text
    assert 'kaito_preset_workspaces{preset_name="phi-3-mini-4k-instruct"} 1.0' in text
    assert 'kaito_workspace_phase{name="workspace-phi-3-mini",namespace="default",phase="succeeded"} 1.0' in text
    assert f'kaito_nodeclaim_create_total{{kind="{kind}",result="success"}} 1.0' in text
    assert "kaito_workspace_time_to_ready_seconds_count 1.0" in text
    assert f'kaito_nodeclaim_ready_seconds_count{{kind="{cluster.settings.node_api.value}"}} 1.0' in text


def test_a_standby_exports_no_gauges() -> None:
    registry = CollectorRegistry()
    WorkspaceMetrics().register(registry, lambda: None)
    assert "kaito_workspaces" not in generate_latest(registry).decode()


@pytest.mark.parametrize(
    ("state", "expected"),
    [(None, "pending"), ("Pending", "pending"), ("Ready", "succeeded"), ("NotReady", "error"), ("Failed", "error")],
)
def test_a_workspace_that_is_still_starting_is_no_error(phi: Workspace, state: str | None, expected: str) -> None:
    assert phase(phi.evolve(status={"state": state} if state else {})) == expected


def test_a_deleting_workspace_is_deleting_whatever_it_was(phi: Workspace) -> None:
    leaving = phi.with_metadata(deletion_timestamp="2030-01-01T00:00:00Z").evolve(status={"state": "Ready"})
    assert phase(leaving) == "deleting"
