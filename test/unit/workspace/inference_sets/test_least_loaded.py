"""A set that becomes smaller deletes the Workspaces with the fewest requests: in virtual time, with polled metrics."""

import pytest

from kaito.api import labels
from kaito.runtime.kinds import Pod
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.testing import World, builders
from kaito.workspace.main import workspace_manager
from kaito.workspace.settings import WorkspaceSettings
from test.unit.workspace.inference_sets.conftest import Sets


class Loaded(Sets):
    """A cluster whose servers report the requests in `requests`, by address of the pod."""

    requests: dict[str, float | None]

    def __init__(self, world: World, settings: WorkspaceSettings) -> None:
        super().__init__(world, settings)
        self.requests, self.polls = {}, list[str]()

    async def fetch(self, address: str) -> bytes | None:
        self.polls.append(address)
        share = self.requests.get(address)
        return None if share is None else f"vllm:num_requests_running {share}\nvllm:num_requests_waiting 0\n".encode()

    def polling(self) -> Manager:
        runtime = Settings(metrics_bind_address="0", health_probe_bind_address="0", leader_elect=False)
        manager = workspace_manager(
            self.settings, runtime, transport=self.world.transport(), clock=self.world.clock, fetch_load=self.fetch
        )
        self.world.track(manager)
        return manager

    async def serve_set(self, requests: dict[str, float | None]) -> None:
        """Makes every Workspace serve with one ready pod that has these requests."""
        await self.provision()
        for number, name in enumerate(self.names(), 1):
            address = f"10.0.0.{number}"
            self.world.put(builders.pod(f"{name}-0", labels={labels.WORKSPACE: name}))
            self.world.patch(Pod, f"{name}-0", {"status": {"podIP": address}}, subresource="status")
            self.requests[address] = requests[name]
        await self.world.settle()


@pytest.fixture
async def loaded(world: World, settings: WorkspaceSettings) -> Loaded:
    return Loaded(world, settings)


async def test_the_workspaces_with_the_fewest_requests_are_deleted_first(loaded: Loaded) -> None:
    loaded.put(replicas=4)
    async with loaded.polling():
        await loaded.serve_set({"phi-0": 1, "phi-1": 7, "phi-2": 0, "phi-3": 9})
        assert loaded.polls == [], "loads are read only when they matter"
        loaded.scale(2)
        await loaded.world.advance(5)
        assert loaded.names() == ["phi-1", "phi-3"]
        assert sorted(loaded.polls) == ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"], "each server once"
        loaded.scale(0)
        await loaded.world.advance(5)
        assert loaded.names() == []
        assert len(loaded.polls) == 4, "without a choice nothing is read"


async def test_a_load_that_changed_is_read_again(loaded: Loaded) -> None:
    loaded.put(replicas=3)
    async with loaded.polling():
        await loaded.serve_set({"phi-0": 5, "phi-1": 1, "phi-2": 5})
        loaded.scale(2)
        await loaded.world.advance(60)
        assert loaded.names() == ["phi-0", "phi-2"]
        loaded.requests |= {"10.0.0.1": 2.0, "10.0.0.3": 3.0}
        loaded.scale(1)
        await loaded.world.advance(5)
        assert loaded.names() == ["phi-2"]


async def test_a_server_that_reports_no_load_is_deleted_before_one_that_works(loaded: Loaded) -> None:
    """Its health may be answered by a program that does not serve any more."""
    loaded.put(replicas=4)
    async with loaded.polling():
        await loaded.serve_set({"phi-0": None, "phi-1": None, "phi-2": 50, "phi-3": 0})
        loaded.scale(3)
        await loaded.world.advance(5)
        assert loaded.names() == ["phi-0", "phi-1", "phi-2"], "an idle one loses no request"
        loaded.scale(2)
        await loaded.world.advance(20)
        assert loaded.names() == ["phi-0", "phi-2"], "the newest of those that report nothing"
        loaded.scale(1)
        await loaded.world.advance(20)
        assert loaded.names() == ["phi-2"], "the one that is known to work stays"


async def test_a_load_is_unknown_after_several_polls(loaded: Loaded) -> None:
    """A busy server may answer too late."""
    loaded.put(replicas=3)
    async with loaded.polling():
        await loaded.serve_set({"phi-0": 3, "phi-1": None, "phi-2": 4})
        loaded.scale(2)
        await loaded.world.advance(0.6)
        assert loaded.names() == ["phi-0", "phi-1", "phi-2"]
        loaded.requests["10.0.0.2"] = 30.0
        await loaded.world.advance(5)
        assert loaded.names() == ["phi-1", "phi-2"]
        loaded.requests = dict.fromkeys(loaded.requests)
        await loaded.world.advance(11)
        loaded.polls.clear()
        loaded.scale(1)
        await loaded.world.advance(5)
        assert loaded.names() == ["phi-1"]
        assert sorted(loaded.polls) == [*["10.0.0.2"] * 3, *["10.0.0.3"] * 3]


async def test_a_workspace_without_a_ready_pod_has_no_requests(loaded: Loaded) -> None:
    """Its StatefulSet may count a copy that the cache does not have yet, or has no more."""
    loaded.put(replicas=3)
    async with loaded.polling():
        await loaded.serve_set({"phi-0": 2, "phi-1": 3, "phi-2": 4})
        loaded.world.delete(Pod, "phi-1-0")
        await loaded.world.settle()
        loaded.scale(2)
        await loaded.world.advance(5)
        assert loaded.names() == ["phi-0", "phi-2"]


async def test_the_load_is_read_again_after_a_restart(loaded: Loaded) -> None:
    loaded.put(replicas=3)
    async with loaded.polling():
        await loaded.serve_set({"phi-0": 0, "phi-1": 3, "phi-2": 4})
    loaded.scale(2)
    async with loaded.polling():
        await loaded.world.advance(5)
        assert loaded.names() == ["phi-1", "phi-2"]
