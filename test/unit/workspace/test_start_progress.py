"""The progress of pods that start, from the polls to the condition and its events."""

import asyncio
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from kaito.api import Workspace
from kaito.runtime.kinds import Event, Pod, StatefulSet
from kaito.runtime.meta import ObjectKey
from kaito.runtime.testing import World, builders
from kaito.workspace import start_progress
from kaito.workspace.start_figures import (
    PlannedFigures,
    StartFigures,
    cache_tokens,
    parse_figures,
    peak_bytes,
    performance,
)
from kaito.workspace.start_progress import Progress, StartMonitor, fetch_progress, parse_progress
from test.support.addresses import own_address
from test.support.pod_servers import Servers
from test.unit.workspace.test_pod_events import put_pod

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

NAME = "workspace-phi-3-mini"
GB = 10**9
ADDRESS = "10.0.0.7"


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    found = Servers()
    monkeypatch.setattr(start_progress, "fetch_progress", found)
    return found


async def starting_pod(cluster: "Cluster", phi: Workspace) -> Pod:
    """A pod of the applied Workspace that runs at `ADDRESS` and is not ready."""
    cluster.apply(phi)
    await cluster.world.settle()
    cluster.join(cluster.claim())
    await cluster.world.settle()
    running = [{"name": NAME, "ready": False, "state": {"running": {"startedAt": "2030-01-01T00:00:00Z"}}}]
    owner = cluster.world.get(StatefulSet, NAME)
    return put_pod(cluster, owner, f"{NAME}-0", phase="Running", podIP=ADDRESS, containerStatuses=running)


async def test_condition_and_events_follow_the_phases_of_a_start(
    cluster: "Cluster", phi: Workspace, servers: Servers
) -> None:
    servers.documents[ADDRESS] = {"phase": "pulling", "bytes": int(3.1 * GB), "total": int(7.6 * GB)}
    async with cluster.controller():
        await starting_pod(cluster, phi)
        await cluster.world.advance(10)
        pulling = f"0 of 1 inference pods ready; pod {NAME}-0 is pulling the weights (3.1 of 7.6 GB)"
        assert cluster.conditions()["InferenceReady"] == ("False", "PullingWeights", pulling)
        for phase, reason, message in (
            ("loading", "LoadingModel", "is loading the model"),
            ("warming", "WarmingUp", "is warming up the model"),
        ):
            servers.documents[ADDRESS] = {"phase": phase}
            await cluster.world.advance(10)
            found = cluster.conditions()["InferenceReady"]
            assert found == ("False", reason, f"0 of 1 inference pods ready; pod {NAME}-0 {message}")
        cluster.serve()
        await cluster.world.advance(10)
        assert cluster.conditions()["InferenceReady"][0] == "True"
    reasons = [event.reason for event in cluster.world.list(Event) if event.type == "Normal"]
    assert [reason for reason in reasons if reason in {"PullingWeights", "LoadingModel", "WarmingUp"}] == [
        "PullingWeights", "LoadingModel", "WarmingUp",
    ]  # fmt: skip


async def test_a_ready_pod_without_figures_is_polled_a_few_times(
    cluster: "Cluster", phi: Workspace, servers: Servers
) -> None:
    async with cluster.controller():
        pod = await starting_pod(cluster, phi)
        await cluster.world.advance(10)
        assert servers.polls > 0
        cluster.world.patch(
            Pod, pod.name, {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, subresource="status"
        )
        cluster.serve()
        await cluster.world.advance(30)
        polls = servers.polls
        await cluster.world.advance(60)
        assert servers.polls == polls


def ready_pod(cluster: "Cluster", pod: Pod) -> None:
    cluster.world.patch(
        Pod, pod.name, {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, subresource="status"
    )
    cluster.serve()


FIGURES = {"loadSeconds": 41.26, "weightsBytes": 7_650_000_000, "cacheTokens": 20_000, "contextTokens": 4096}


async def test_the_status_has_the_figures_of_the_start_also_after_a_restart_of_the_controller(
    cluster: "Cluster", phi: Workspace, servers: Servers
) -> None:
    def values() -> dict[str, str]:
        found = cluster.world.get(Workspace, NAME).status.performance
        return {name: f"{each.value} {each.unit}" for name, each in (found.metrics if found else {}).items()}

    async with cluster.controller():
        pod = await starting_pod(cluster, phi)
        servers.documents[ADDRESS] = {"phase": "warming"}
        await cluster.world.advance(10)
        assert values() == {}
        servers.documents[ADDRESS] = {"phase": "ready", "figures": FIGURES}
        ready_pod(cluster, pod)
        await cluster.world.advance(10)
        expected = {
            "kvCacheTokens": "20000 tokens",
            "maxConcurrency": "4.88 requests",
            "weights": "7.12 GiB",
            "loadTime": "41.3 seconds",
        }
        assert values() == expected
        polls = servers.polls
        await cluster.world.advance(60)
        assert servers.polls == polls, "the figures of a pod are read once"
    servers.documents.clear()
    async with cluster.controller():
        await cluster.world.advance(60)
        assert values() == expected


def test_the_worst_pod_counts() -> None:
    slow = StartFigures(loadSeconds=90.0, cacheTokens=9000, contextTokens=1000, weightsBytes=2**30)
    fast = StartFigures(loadSeconds=30.0, cacheTokens=10_000, contextTokens=1000)
    found = performance([slow, fast, StartFigures(loadSeconds=1.0)], PlannedFigures(cache_tokens=9500))
    assert found is not None
    assert {name: each.value for name, each in found.metrics.items()} == {
        "loadTime": "90.0", "kvCacheTokens": "9000", "maxConcurrency": "9.00", "weights": "1.00",
    }  # fmt: skip
    assert found.metrics["kvCacheTokens"].config == {"planned": "9500"}
    assert performance([]) is None
    assert list(peak_bytes(found)) == [], "the servers reported no memory"
    assert list(cache_tokens(found)) == [("measured", 9000), ("planned", 9500)]
    assert list(cache_tokens(performance([fast]))) == [("measured", 10_000)]
    assert list(cache_tokens(performance([StartFigures(loadSeconds=1.0)]))) == list(cache_tokens(None)) == []


def test_the_peak_is_what_is_left_of_the_usable_memory() -> None:
    planned = PlannedFigures(peak_bytes=15 * 2**30, usable_bytes=20 * 2**30)
    pods = [StartFigures(loadSeconds=1.0, cacheBytes=size * 2**30) for size in (4, 3)]
    found = performance(pods, planned)
    assert list(peak_bytes(found)) == [("measured", 17 * 2**30), ("planned", 15 * 2**30)]
    transformers = performance([StartFigures(loadSeconds=1.0, peakBytes=2**30)], PlannedFigures(peak_bytes=2**29))
    assert list(peak_bytes(transformers)) == [("measured", 2**30), ("planned", 2**29)]


@pytest.mark.parametrize(
    "body",
    [
        None,
        b"",
        b'{"phase": "ready"}',
        b'{"phase": "ready", "figures": []}',
        b'{"phase": "ready", "figures": {"loadSeconds": -1}}',
        b'{"phase": "ready", "figures": {"loadSeconds": 1, "cacheTokens": 1e99}}',
        b'{"phase": "ready", "figures": {"loadSeconds": NaN}}',
    ],
)
def test_other_documents_contain_no_figures(body: bytes | None) -> None:
    assert parse_figures(body) is None


async def test_pods_of_a_template_are_not_polled(cluster: "Cluster", phi: Workspace, servers: Servers) -> None:
    template = {"spec": {"containers": [{"name": "server", "image": "registry.example/server:1"}]}}
    raw = phi.to_dict()
    raw["inference"] = {"template": template}
    async with cluster.controller():
        await starting_pod(cluster, Workspace.model_validate(raw))
        await cluster.world.advance(30)
    assert servers.polls == 0


async def test_a_fault_of_the_pod_precedes_its_progress(cluster: "Cluster", phi: Workspace, servers: Servers) -> None:
    servers.documents[ADDRESS] = {"phase": "loading"}
    async with cluster.controller():
        pod = await starting_pod(cluster, phi)
        await cluster.world.advance(10)
        ended = {"exitCode": 1, "message": "no space left on device", "finishedAt": "2030-01-01T00:00:00Z"}
        statuses = [{"name": NAME, "ready": False, "restartCount": 1, "state": {"terminated": ended}}]
        cluster.world.patch(Pod, pod.name, {"status": {"containerStatuses": statuses}}, subresource="status")
        await cluster.world.advance(10)
        status, reason, message = cluster.conditions()["InferenceReady"]
    assert (status, reason) == ("False", "ContainerCrashLoopBackOff")
    assert "no space left on device" in message


def test_message_contains_the_known_bytes() -> None:
    assert Progress(phase="downloading").message == "is downloading the weights from Hugging Face"
    assert Progress(phase="downloading", bytes=GB).message.endswith("(1.0 GB so far)")
    assert Progress(phase="pulling", bytes=GB, total=2 * GB).message.endswith("(1.0 of 2.0 GB)")


@pytest.mark.parametrize(
    "body",
    [
        None,
        b"",
        b"[]",
        b"loading",
        b'{"phase": "ready"}',
        b'{"phase": "draining"}',
        b'{"phase": ["loading"]}',
        b'{"phase": "pulling", "bytes": -1}',
        b'{"phase": "pulling", "bytes": "7"}',
        b'{"phase": "pulling", "total": 1e99}',
        b'{"phase": "pulling", "bytes": 1',
    ],
)
def test_other_documents_contain_no_progress(body: bytes | None) -> None:
    assert parse_progress(body) is None


@pytest.mark.parametrize(
    ("before", "after", "is_news"),
    [
        (None, Progress(phase="loading"), True),
        (Progress(phase="loading"), Progress(phase="loading"), False),
        (Progress(phase="loading"), Progress(phase="warming"), True),
        (Progress(phase="pulling", total=100 * GB), Progress(phase="pulling", bytes=4 * GB, total=100 * GB), False),
        (Progress(phase="pulling", total=100 * GB), Progress(phase="pulling", bytes=5 * GB, total=100 * GB), True),
        (Progress(phase="pulling", total=GB // 10), Progress(phase="pulling", bytes=GB // 20, total=GB // 10), False),
        (Progress(phase="downloading"), Progress(phase="downloading", bytes=GB - 1), False),
        (Progress(phase="downloading"), Progress(phase="downloading", bytes=GB), True),
    ],
)
def test_small_steps_are_not_reported(before: Progress | None, after: Progress, is_news: bool) -> None:
    assert after.is_news(before) is is_news


async def test_a_pod_that_hangs_does_not_delay_the_others(world: World) -> None:
    added: list[ObjectKey] = []

    class Queue:
        def add(self, key: ObjectKey, **_: object) -> None:
            added.append(key)

    async def fetch(address: str) -> bytes | None:
        if address == "10.0.0.1":
            await asyncio.sleep(2)
            return None
        return b'{"phase": "loading"}'

    monitor = StartMonitor(fetch)
    for number in (1, 2):
        pod = builders.pod(f"p{number}", ready=False)
        pod = pod.evolve(status={**pod.status.to_dict(), "podIP": f"10.0.0.{number}", "phase": "Running"})
        monitor.watch(ObjectKey("default", f"w{number}"), [world.put(pod)])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await monitor.run(Queue(), None)  # type: ignore[arg-type]  # the view is not used
    assert added == [ObjectKey("default", "w2")]


async def test_only_a_small_successful_response_is_read() -> None:
    responses = {
        "/ok": web.Response(body=b'{"phase": "loading"}'),
        "/error": web.Response(status=503, body=b"{}"),
        "/long": web.Response(body=b'{"phase": "loading"}' + b" " * 5000),
        "/redirect": web.Response(status=302, headers={"Location": "http://127.0.0.2:5000/secret"}),
    }
    requested = "/ok"

    async def progress(_: web.Request) -> web.Response:
        return responses[requested]

    app = web.Application()
    app.router.add_get("/progress", progress)
    runner = web.AppRunner(app)
    await runner.setup()
    address = own_address()
    await web.TCPSite(runner, address, 5000).start()
    try:
        assert await fetch_progress(address) == b'{"phase": "loading"}'
        requested = "/error"
        assert await fetch_progress(address) is None
        requested = "/long"
        assert await fetch_progress(address) is None
        requested = "/redirect"
        assert await fetch_progress(address) is None
    finally:
        await runner.cleanup()
    assert await fetch_progress(address) is None, "nothing listens any more"
