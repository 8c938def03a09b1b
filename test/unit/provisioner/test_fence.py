"""Writes to the cloud are fenced like writes to the API server.

A leader that is stopped for longer than its lease, between a decision and its request, sends neither a creation nor a
deletion.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from kaito.api.karpenter import NodeClaim
from kaito.cloud.azure import provider as azure
from kaito.cloud.azure.provider import AzureProvider
from kaito.provisioner.flags import parse
from kaito.provisioner.main import manager_for
from kaito.runtime.errors import NotLeader

if TYPE_CHECKING:
    from test.unit.provisioner.conftest import Stage

PAUSE_SECONDS = 25.0
"""Longer than a lease lasts."""


def writes(stage: "Stage") -> list[str]:
    return [request.method for request in stage.simulator.api.requests if request.method != "GET"]


def stop_after(stage: "Stage", monkeypatch: pytest.MonkeyPatch, method: str) -> Callable[[], bool]:
    """Stops the process after the next call of a method of the provider, and continues it later."""
    inner = getattr(AzureProvider, method)
    stopped: list[bool] = []

    async def call(self: AzureProvider, *args: Any) -> Any:
        answer = await inner(self, *args)
        if not stopped:
            stopped.append(True)
            stage.world.suspend(PAUSE_SECONDS)
        return answer

    monkeypatch.setattr(AzureProvider, method, call)
    return lambda: bool(stopped)


async def test_resumed_former_leader_creates_no_pool(stage: "Stage", monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = stop_after(stage, monkeypatch, "check_availability")

    async def scenario() -> None:
        async with stage.elected():
            stage.claim()
            await stage.world.advance(60)

    with pytest.raises(NotLeader, match="leader election lost"):
        await scenario()
    assert stopped()
    assert writes(stage) == []
    async with stage.elected():
        await stage.until_ready(within=900)
    assert writes(stage) == ["PUT"]


async def test_resumed_former_leader_deletes_no_pool(stage: "Stage", monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[Callable[[], bool]] = []

    async def scenario() -> None:
        async with stage.elected(gc_interval_seconds=1e6):
            stage.claim()
            await stage.world.advance(60)
            stopped.append(stop_after(stage, monkeypatch, "get"))
            stage.delete()
            await stage.world.advance(60)

    with pytest.raises(NotLeader, match="leader election lost"):
        await scenario()
    assert stopped[0]()
    assert writes(stage) == ["PUT"]
    async with stage.elected(gc_interval_seconds=1e6):
        await stage.until_gone(within=900)
    assert writes(stage) == ["PUT", "DELETE"]


def test_main_fences_cloud_writes_with_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    fences: list[Callable[[], None]] = []

    class Recorded(AzureProvider):  # type: ignore[misc]  # final; the test records the arguments
        def __init__(self, *args: Any, fence: Callable[[], None], **named: Any) -> None:
            super().__init__(*args, fence=fence, **named)
            fences.append(fence)

    monkeypatch.setattr(azure, "AzureProvider", Recorded)
    flags = ["--azure-subscription-id=s", "--azure-resource-group=g", "--azure-cluster=c"]
    flags += ["--azure-credential=fake", "--arm-endpoint=http://localhost", "--leader-elect=true"]
    manager_for(parse(flags, {}), [NodeClaim])
    with pytest.raises(NotLeader, match="has not started"):
        fences[0]()
