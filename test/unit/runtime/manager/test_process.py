"""`Manager.run` as a process against an API server on a socket: signals, exit codes, the lease kept in its thread."""

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from kaito.apiserver import ApiServer, serve
from kaito.runtime.client import Client
from kaito.runtime.client.connect import find_cluster_config
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.errors import Conflict
from kaito.runtime.kinds import ConfigMap, Lease
from kaito.runtime.meta import ObjectMeta

PROGRAM = """
import asyncio, subprocess, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from kaito.runtime import Again, Controller, Manager, Request, Settings
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.client import MergePatch

async def reconcile(request: Request[ConfigMap]) -> Again | None:
    wanted = request.object.data.get("want") or ""
    if wanted == "stuck":
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass
    if wanted == "block":
        await request.api.patch(request.object, MergePatch({"data": {"want": None, "done": "blocked"}}))
        time.sleep(4)
        await request.api.patch(request.object, MergePatch({"data": {"done": "too late"}}))
    if wanted.startswith("thread"):
        await request.api.patch(request.object, MergePatch({"data": {"done": "begun"}}))
        await asyncio.to_thread(time.sleep, float(wanted.removeprefix("thread ")))
    if wanted == "released":
        asyncio.get_running_loop().run_in_executor(None, time.sleep, 30)
    if wanted == "pool":
        asyncio.get_running_loop().run_in_executor(ThreadPoolExecutor(), time.sleep, 30)
    if wanted == "raw":
        threading.Thread(target=time.sleep, args=[30], name="raw").start()
    if wanted == "program":
        await request.api.patch(request.object, MergePatch({"data": {"done": "begun"}}))
        await asyncio.to_thread(subprocess.run, ["sleep", "30"], stderr=subprocess.DEVNULL)
    if wanted and request.object.data.get("done") not in {wanted, "begun"}:
        await request.api.patch(request.object, MergePatch({"data": {"done": wanted}}))
    return None

Manager(Settings.from_env("OP_"), controllers=[Controller(ConfigMap, reconcile)], lease="op").run()
"""

QUICK_LEASE = {"OP_LEASE_DURATION_SECONDS": "2", "OP_RENEW_DEADLINE_SECONDS": "1.5", "OP_RETRY_PERIOD_SECONDS": "0.3"}


class Cluster:
    def __init__(self, client: Client, kubeconfig: Path, server: ApiServer) -> None:
        self.client = client
        self.kubeconfig = kubeconfig
        self.server = server

    async def put(self, name: str, **data: str) -> None:
        await self.client.create(ConfigMap(metadata=ObjectMeta(name=name, namespace="default"), data=data))

    async def data(self, name: str) -> dict[str, str]:
        return (await self.client.get(ConfigMap, name, "default")).data


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncGenerator[Cluster]:
    server = ApiServer(seed=1)
    async with serve(server) as served:
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(served.kubeconfig()))
        transport = HttpTransport(await find_cluster_config(kubeconfig))
        yield Cluster(Client(transport, field_manager="test"), kubeconfig, server)
        await transport.close()


@asynccontextmanager
async def operator(cluster: Cluster, **environment: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        stderr=asyncio.subprocess.PIPE,
        env={
            "OP_KUBECONFIG": str(cluster.kubeconfig),
            "OP_METRICS_BIND_ADDRESS": "0",
            "OP_HEALTH_PROBE_BIND_ADDRESS": "0",
            **environment,
        },
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until(condition: Callable[[], object], *, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while True:
            result = condition()
            if await result if asyncio.iscoroutine(result) else result:
                return
            await asyncio.sleep(0.05)


async def done(cluster: Cluster, name: str, value: str) -> bool:
    return (await cluster.data(name)).get("done") == value


async def end(process: asyncio.subprocess.Process, seconds: float = 20) -> tuple[int | None, str]:
    async with asyncio.timeout(seconds):
        _, stderr = await process.communicate()
    return process.returncode, stderr.decode()


async def test_a_signal_stops_in_order_releases_the_lease_and_exits_with_0(cluster: Cluster) -> None:
    await cluster.put("a", want="1")
    async with operator(cluster) as process:
        await until(lambda: done(cluster, "a", "1"))
        holder = (await cluster.client.get(Lease, "op", "default")).spec.holder_identity
        assert holder
        process.send_signal(signal.SIGTERM)
        code, log = await end(process)
    assert code == 0, log
    assert '"msg": "lease released"' in log
    assert (await cluster.client.get(Lease, "op", "default")).spec.holder_identity == ""


async def test_a_second_signal_exits_at_once_with_1(cluster: Cluster) -> None:
    await cluster.put("a", want="stuck")
    async with operator(cluster) as process:
        await until(lambda: bool(cluster.server.requests) and _lease_exists(cluster))
        await asyncio.sleep(0.5)
        process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.5)
        assert process.returncode is None
        process.send_signal(signal.SIGINT)
        code, log = await end(process, 5)
    assert code == 1
    assert "second signal, exiting at once" in log


@pytest.mark.slow("test_a_signal_stops_in_order_releases_the_lease_and_exits_with_0")
async def test_work_that_does_not_end_is_named_and_left(cluster: Cluster) -> None:
    await cluster.put("a", want="stuck")
    async with operator(cluster, OP_GRACEFUL_SHUTDOWN_SECONDS="1") as process:
        await until(lambda: _lease_exists(cluster))
        await asyncio.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        code, log = await end(process, 10)
    assert code == 1
    assert "still running after 1 s: elected.configmap" in log
    assert "lease released" not in log


async def holder(cluster: Cluster) -> str | None:
    return (await cluster.client.get(Lease, "op", "default")).spec.holder_identity


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("want", "words"),
    [
        ("thread 60", "thread of time.sleep (controller.configmap.worker-0)"),
        ("program", "thread of subprocess.run (controller.configmap.worker-0)"),
        ("released", "thread of time.sleep (controller.configmap.worker-0)"),
        ("pool", "thread ThreadPoolExecutor-0_0 at"),
        ("raw", "thread raw at"),
    ],
)
async def test_a_thread_that_works_on_keeps_the_lease_and_the_process_ends_in_time(
    cluster: Cluster, want: str, words: str
) -> None:
    """The lease is not released while work goes on, and the process ends with 1 after its period."""
    await cluster.put("a", want=want)
    async with operator(cluster, OP_GRACEFUL_SHUTDOWN_SECONDS="2") as process:
        await until(lambda: begun(cluster))
        before = await holder(cluster)
        process.send_signal(signal.SIGTERM)
        began = asyncio.get_running_loop().time()
        code, log = await end(process, 15)
        took = asyncio.get_running_loop().time() - began
    assert code == 1, log
    assert 1.9 < took < 8, log
    assert before
    assert await holder(cluster) == before
    assert words in log
    assert "lease not released: work is still running" in log
    assert "lease released" not in log
    assert '"msg": "stopped"' not in log


async def begun(cluster: Cluster) -> bool:
    return (await cluster.data("a")).get("done") is not None


@pytest.mark.slow("test_a_thread_that_works_on_keeps_the_lease_and_the_process_ends_in_time")
async def test_a_thread_that_ends_within_the_period_is_waited_for(cluster: Cluster) -> None:
    """Then the stop is clean."""
    await cluster.put("a", want="thread 2")
    async with operator(cluster, OP_GRACEFUL_SHUTDOWN_SECONDS="20") as process:
        await until(lambda: begun(cluster))
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        assert process.returncode is None
        assert await holder(cluster)
        code, log = await end(process, 15)
    assert code == 0, log
    assert "waiting for threads" in log
    assert await holder(cluster) == ""


@pytest.mark.slow("test_a_second_signal_exits_at_once_with_1")
async def test_a_second_signal_does_not_wait_for_threads(cluster: Cluster) -> None:
    await cluster.put("a", want="thread 60")
    async with operator(cluster) as process:
        await until(lambda: begun(cluster))
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        assert process.returncode is None
        process.send_signal(signal.SIGTERM)
        code, log = await end(process, 5)
    assert code == 1
    assert "second signal, exiting at once" in log
    assert await holder(cluster)


async def test_a_lease_that_is_lost_while_a_thread_works_ends_the_process(cluster: Cluster) -> None:
    """Within the short grace of a lost lease."""
    await cluster.put("a", want="thread 60")
    async with operator(cluster, **QUICK_LEASE) as process:
        await until(lambda: begun(cluster))
        lease = await cluster.client.get(Lease, "op", "default")
        spec = lease.spec.evolve(holder_identity="thief", lease_duration_seconds=60)
        thief = Client(cluster.client.transport, field_manager="thief")
        await until(lambda: stolen(thief, lease.evolve(spec=spec)))
        code, log = await end(process, 15)
    assert code == 1, log
    assert "leader election lost: thief holds it" in log
    assert "thread of time.sleep" in log
    assert await holder(cluster) == "thief"


async def stolen(thief: Client, lease: Lease) -> bool:
    current = await thief.get(Lease, "op", "default")
    try:
        await thief.update(lease.with_metadata(resource_version=current.metadata.resource_version))
    except Conflict:
        return False
    return True


async def test_a_blocked_loop_hears_the_second_signal(cluster: Cluster) -> None:
    """Python's own handlers run although the loop does not."""
    await cluster.put("a", want="block")
    async with operator(cluster) as process:
        await until(lambda: done(cluster, "a", "blocked"))
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        code, _ = await end(process, 3)
    assert code == 1


async def _lease_exists(cluster: Cluster) -> bool:
    return await cluster.client.find(Lease, "op", "default") is not None


async def test_no_way_to_a_cluster_exits_with_1_and_says_so(cluster: Cluster, tmp_path: Path) -> None:
    cluster.kubeconfig = tmp_path / "missing"
    async with operator(cluster) as process:
        code, log = await end(process)
    assert code == 1
    assert "stopped by a failure" in log
    assert str(tmp_path / "missing") in log
    assert "Traceback" not in log


@pytest.mark.conformance(48)
async def test_a_blocked_loop_loses_the_lease_and_its_write_is_fenced(cluster: Cluster) -> None:
    await cluster.put("a", want="block")
    async with operator(cluster, **QUICK_LEASE) as process:
        await until(lambda: done(cluster, "a", "blocked"))
        code, log = await end(process)
    assert code == 1, log
    assert "event loop is blocked" in log
    assert "time.sleep(4)" in log or "in reconcile" in log
    assert "lease not renewed" in log
    assert await cluster.data("a") == {"done": "blocked"}


@pytest.mark.conformance(46)
async def test_a_stopped_process_does_not_write_when_it_goes_on(cluster: Cluster) -> None:
    await cluster.put("a", want="1")
    async with operator(cluster, **QUICK_LEASE) as old:
        await until(lambda: done(cluster, "a", "1"))
        old.send_signal(signal.SIGSTOP)
        async with operator(cluster, **QUICK_LEASE) as new:
            await cluster.put("b", want="2")
            await until(lambda: done(cluster, "b", "2"))
            await cluster.put("c", want="3")
            await until(lambda: done(cluster, "c", "3"))
            transitions = (await cluster.client.get(Lease, "op", "default")).spec.lease_transitions
            writes = [request for request in cluster.server.requests if request.verb == "patch"]
            old.send_signal(signal.SIGCONT)
            code, log = await end(old)
            assert code == 1, log
            assert "leader election lost" in log
            later = [request for request in cluster.server.requests if request.verb == "patch"]
            assert [(request.name, request.status) for request in later] == [
                (request.name, request.status) for request in writes
            ]
            assert transitions == 1
            new.send_signal(signal.SIGTERM)
            assert (await end(new))[0] == 0
