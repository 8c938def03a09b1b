"""The autoscaler of Workspaces and InferenceSets on the in-memory API server in virtual time."""

from typing import Any

import pytest

from kaito.api import InferenceSet, Workspace, labels
from kaito.runtime.kinds import Pod
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.testing import World, builders
from kaito.workspace.main import workspace_manager
from kaito.workspace.settings import WorkspaceSettings
from test.unit.workspace.inference_sets.conftest import Sets

AUTOSCALING: dict[str, Any] = {
    "minReplicas": 1,
    "maxReplicas": 4,
    "target": {"requests": 10},
    "scaleDown": {"windowSeconds": 300},
}


class Loaded(Sets):
    """A cluster whose servers report `requests` in all, divided evenly."""

    requests = 0.0
    silent = False

    async def fetch(self, address: str) -> bytes | None:  # every server has the same share
        if self.silent:
            return None
        share = self.requests / max(len(self.pods()), 1)
        return f"vllm:num_requests_running {share}\nvllm:num_requests_waiting 0\n".encode()

    def pods(self) -> list[Pod]:
        return [pod for pod in self.world.list(Pod) if not pod.deleting]

    def autoscaled(self) -> Manager:
        runtime = Settings(metrics_bind_address="0", health_probe_bind_address="0", leader_elect=False)
        manager = workspace_manager(
            self.settings, runtime, transport=self.world.transport(), clock=self.world.clock, fetch_load=self.fetch
        )
        self.world.track(manager)
        return manager

    def run_pods(self, wanted: dict[str, int]) -> None:
        """Makes exactly this number of ready pods exist for each Workspace."""
        for pod in self.pods():
            name, _, ordinal = pod.name.rpartition("-")
            if int(ordinal) >= wanted.get(name, 0):
                self.world.delete(Pod, pod.name)
        for name, count in wanted.items():
            for number in range(count):
                if self.world.find(Pod, f"{name}-{number}") is None:
                    pod = builders.pod(f"{name}-{number}", labels={labels.WORKSPACE: name})
                    address = {"podIP": f"10.0.0.{len(self.pods()) + 1}"}
                    stored = self.world.put(pod)
                    self.world.patch(Pod, stored.name, {"status": address}, subresource="status")

    async def serve_set(self) -> None:
        await self.provision()
        self.run_pods(dict.fromkeys(self.names(), 1))
        await self.world.advance(60)

    def reason(self) -> str:
        status = self.current().status.autoscaling
        return status.reason if status is not None else ""


@pytest.fixture
async def loaded(world: World, settings: WorkspaceSettings) -> Loaded:
    return Loaded(world, settings)


async def test_a_set_grows_and_shrinks_with_its_load_and_reports_why(loaded: Loaded) -> None:
    loaded.put(replicas=1, autoscaling=AUTOSCALING)
    async with loaded.autoscaled():
        loaded.requests = 5
        await loaded.serve_set()
        assert loaded.current().spec.replicas == 1
        assert loaded.reason() == "Steady"

        loaded.requests = 28
        await loaded.world.advance(90)
        assert loaded.current().spec.replicas == 3
        status = loaded.current().status.autoscaling
        assert status is not None
        assert status.message == "28 requests run or wait, and the target is 10 for each copy"
        assert any(event.reason == "ScaledUp" for event in loaded.world.events())
        await loaded.world.advance(300)
        assert loaded.current().spec.replicas == 3, "two copies start, which the load already requires"
        await loaded.serve_set()
        assert loaded.current().status.ready_replicas == 3
        assert loaded.condition()[0] == "True"

        loaded.requests = 2
        await loaded.world.advance(200)
        assert loaded.current().spec.replicas == 3
        assert loaded.reason() == "Stabilizing"
        await loaded.world.advance(500)
        assert loaded.current().spec.replicas == 1
        assert loaded.names() == ["phi-0"]


async def test_a_restart_keeps_the_number_and_waits_a_whole_window(loaded: Loaded) -> None:
    loaded.put(replicas=1, autoscaling=AUTOSCALING)
    async with loaded.autoscaled():
        loaded.requests = 28
        await loaded.serve_set()
        await loaded.serve_set()
        assert loaded.current().spec.replicas == 3
    loaded.requests = 2
    async with loaded.autoscaled():
        await loaded.world.advance(250)
        assert loaded.current().spec.replicas == 3
        await loaded.world.advance(300)
        assert loaded.current().spec.replicas < 3


async def test_servers_that_do_not_answer_change_nothing(loaded: Loaded) -> None:
    loaded.put(replicas=2, autoscaling=AUTOSCALING)
    async with loaded.autoscaled():
        loaded.silent = True
        await loaded.serve_set()
        await loaded.world.advance(900)
        assert loaded.current().spec.replicas == 2
        assert loaded.reason() == "UnknownLoad"


@pytest.mark.slow("test_a_workspace_is_scaled_by_its_load")
async def test_the_schedule_and_the_limits_are_kept_without_load(loaded: Loaded) -> None:
    nightly = {"schedule": "0 2 * * *", "duration": "1h", "minReplicas": 3}
    loaded.put(replicas=1, autoscaling={**AUTOSCALING, "schedule": [nightly]})
    async with loaded.autoscaled():
        await loaded.serve_set()
        await loaded.world.advance(7200)
        assert loaded.current().spec.replicas == 3
        assert loaded.reason() in {"Schedule", "Steady", "UnknownLoad"}
        loaded.scale(9)
        await loaded.world.advance(60)
        assert loaded.current().spec.replicas == 4


async def test_a_set_at_zero_is_left_to_the_user(loaded: Loaded) -> None:
    loaded.put(replicas=0, autoscaling=AUTOSCALING)
    async with loaded.autoscaled():
        await loaded.world.advance(600)
        assert loaded.current().spec.replicas == 0


async def test_without_a_target_the_status_is_removed_and_no_server_is_polled(loaded: Loaded) -> None:
    loaded.put(replicas=1, autoscaling=AUTOSCALING)
    async with loaded.autoscaled():
        await loaded.serve_set()
        assert loaded.current().status.autoscaling is not None
        loaded.change({"autoscaling": None})
        await loaded.world.settle()
        assert loaded.current().status.autoscaling is None
        loaded.requests = 100
        await loaded.world.advance(300)
        assert loaded.current().spec.replicas == 1


async def test_a_workspace_is_scaled_by_its_load(loaded: Loaded, phi: Workspace) -> None:
    stored = phi.to_dict() | {"spec": {"replicas": 1, "autoscaling": AUTOSCALING}}
    loaded.apply(Workspace.model_validate(stored))
    async with loaded.autoscaled():
        await loaded.until_serving()
        loaded.requests = 28
        loaded.run_pods({phi.name: 1})
        await loaded.world.advance(90)
        assert loaded.workspace().spec.replicas == 3
        status = loaded.workspace().status.autoscaling
        assert status is not None
        assert (status.replicas, status.reason) in {(3, "Load"), (3, "Steady")}
        assert status.last_scale_time is not None
        generation = loaded.workspace().metadata.generation
        assert loaded.workspace().status.observed_generation == generation


async def test_a_change_by_the_user_takes_precedence(loaded: Loaded) -> None:
    loaded.put(replicas=1, autoscaling=AUTOSCALING)
    async with loaded.autoscaled():
        loaded.requests = 28
        await loaded.provision()
        loaded.run_pods(dict.fromkeys(loaded.names(), 1))
        loaded.world.fail_next("PATCH", InferenceSet, status=409, message="the object has been modified", times=1)
        await loaded.world.advance(120)
        assert loaded.current().spec.replicas == 3


async def test_a_steady_load_writes_nothing(loaded: Loaded) -> None:
    loaded.put(replicas=1, autoscaling=AUTOSCALING)
    async with loaded.autoscaled():
        loaded.requests = 5
        await loaded.serve_set()
        loaded.world.clear_requests()
        await loaded.world.advance(1200)
        assert [r for r in loaded.world.requests if r.method != "GET"] == []
