"""A stop waits for work in all threads and keeps the lease while it runs."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from kaito.apiserver import ApiServer
from kaito.runtime import Controller, ObjectMeta, Request
from kaito.runtime.kinds import ConfigMap, Lease
from kaito.runtime.manager import Background, Manager, Settings, ShutdownTimedOut
from kaito.runtime.manager.threads import CountingExecutor, Threads, counting_executor
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import InMemoryTransport, World
from kaito.runtime.webhook import Admission, Webhook


class Work:
    """Blocks a thread until it is released."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.release = threading.Event()

    def block(self) -> None:
        self.begun.set()
        self.release.wait(30)

    async def in_thread(self) -> None:
        await asyncio.to_thread(self.block)

    async def in_executor(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.block)


@pytest.fixture
def work() -> Work:
    return Work()


async def begin(world: World, work: Work) -> None:
    """Waits in real time, while the simulated one stands still."""
    for _ in range(5000):
        if work.begun.is_set():
            return
        await asyncio.sleep(0)
        work.begun.wait(0.001)
    raise AssertionError("the thread has not begun")


def controller(act: Callable[[], Awaitable[None]]) -> Controller[ConfigMap]:
    async def reconcile(request: Request[ConfigMap]) -> None:
        await act()

    return Controller(ConfigMap, reconcile)


def finalizing(act: Callable[[], Awaitable[None]]) -> Controller[ConfigMap]:
    async def reconcile(request: Request[ConfigMap]) -> None: ...

    async def clean_up(request: Request[ConfigMap]) -> None:
        await act()

    return Controller(ConfigMap, reconcile).finalizes("example.com/work", clean_up)


async def stopped(manager: Manager, world: World, work: Work, *, deleted: bool = False) -> None:
    async with manager:
        world.put(ConfigMap(metadata=ObjectMeta(name="a")))
        if deleted:
            await world.settle()
            world.delete(ConfigMap, "a")
        await begin(world, work)


@pytest.mark.parametrize("method", ["in_thread", "in_executor"])
async def test_a_reconcile_whose_thread_goes_on_keeps_the_lease(world: World, work: Work, method: str) -> None:
    manager = world.manager(controller(getattr(work, method)), lease="op")
    try:
        with pytest.raises(ShutdownTimedOut, match=r"thread of .*Work\.block \(controller\.configmap\.worker-0\)"):
            await stopped(manager, world, work)
        assert world.get(Lease, "op").spec.holder_identity
    finally:
        work.release.set()


async def test_a_finalizer_run_whose_thread_goes_on_keeps_the_lease(world: World, work: Work) -> None:
    manager = world.manager(finalizing(work.in_thread), lease="op")
    try:
        with pytest.raises(ShutdownTimedOut, match=r"thread of .*Work\.block \(controller\.configmap\.worker-0\)"):
            await stopped(manager, world, work, deleted=True)
        assert world.get(Lease, "op").spec.holder_identity
        assert world.get(ConfigMap, "a").metadata.finalizers == ["example.com/work"]
    finally:
        work.release.set()


async def test_a_runnable_whose_thread_goes_on_keeps_the_lease(world: World, work: Work) -> None:
    manager = world.manager(runnables=[Background("pump", work.in_thread, one_shot=True)], lease="op")
    try:
        with pytest.raises(ShutdownTimedOut, match=r"Work\.block \(elected\.pump\)"):
            await stopped(manager, world, work)
        assert world.get(Lease, "op").spec.holder_identity
    finally:
        work.release.set()


async def test_threads_that_end_soon_are_waited_for_and_the_lease_is_released(world: World, work: Work) -> None:
    manager = world.manager(controller(work.in_thread), lease="op")
    timer = threading.Timer(0.1, work.release.set)
    timer.start()
    await stopped(manager, world, work)
    timer.join()
    assert not world.get(Lease, "op").spec.holder_identity


async def test_threads_of_other_tasks_are_not_waited_for(world: World, work: Work) -> None:
    """A manager in a loop with other tasks knows its own threads."""
    manager = world.manager(lease="op")
    async with manager:
        await world.settle()
        waiting = asyncio.get_running_loop().run_in_executor(None, work.block)
        for _ in range(5000):
            if work.begun.wait(0.001):
                break
            await asyncio.sleep(0)
        waiting.cancel()
    work.release.set()
    assert not world.get(Lease, "op").spec.holder_identity


async def test_the_executor_of_the_loop_still_runs_calls() -> None:
    loop = asyncio.get_running_loop()
    named = ThreadPoolExecutor(1, thread_name_prefix="mine")
    loop.set_default_executor(named)
    counting = counting_executor()
    assert counting is counting_executor()
    assert isinstance(counting, CountingExecutor)
    name = await asyncio.to_thread(lambda: threading.current_thread().name)
    assert name.startswith("mine")
    assert not counting.calls


async def test_a_call_that_is_refused_is_not_counted() -> None:
    counting = CountingExecutor()
    counting.shutdown()
    with pytest.raises(RuntimeError):
        counting.submit(print)
    assert not counting.calls
    assert Threads().busy() == []


async def _requested(url: str, **options: Any) -> None:
    """Sends a request without waiting for its answer."""
    async with aiohttp.ClientSession() as session:
        with suppress(aiohttp.ClientError, asyncio.CancelledError):
            await session.request("POST" if options else "GET", url, **options)


async def _begun(work: Work) -> None:
    async with asyncio.timeout(20):
        while True:
            if work.begun.is_set():
                return
            await asyncio.sleep(0.01)


async def _serve_until_begun(manager: Manager, work: Work, request: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with TaskScope("test") as scope, manager:
        scope.spawn(request(), name="request")
        await _begun(work)


IN_REAL_TIME = Settings(
    metrics_bind_address="0",
    health_probe_bind_address="127.0.0.1:0",
    webhook_port=0,
    webhook_bind_address="127.0.0.1",
    webhook_hosts=("127.0.0.1",),
    graceful_shutdown_seconds=1,
)


async def test_a_handler_whose_thread_goes_on_makes_the_stop_time_out(work: Work) -> None:
    """A request to a server of the manager is work of the manager."""

    async def serve(request: web.Request) -> web.Response:
        await asyncio.to_thread(work.block)
        return web.Response()

    manager = Manager(IN_REAL_TIME, transport=InMemoryTransport(ApiServer(seed=1)), name="served")
    manager.serve("/work", serve, on="health")
    try:
        with pytest.raises(ShutdownTimedOut, match=r"thread of .*Work\.block"):
            await _serve_until_begun(manager, work, lambda: _requested(f"http://127.0.0.1:{manager.health_port}/work"))
    finally:
        work.release.set()


async def test_a_webhook_whose_thread_goes_on_makes_the_stop_time_out(work: Work) -> None:

    async def validate(admission: Admission[ConfigMap]) -> None:
        await asyncio.to_thread(work.block)

    manager = Manager(
        IN_REAL_TIME,
        transport=InMemoryTransport(ApiServer(seed=1)),
        webhooks=[Webhook(ConfigMap, validate=validate)],
        name="webhooks",
    )
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}}
    request = {"uid": "u", "operation": "CREATE", "name": "a", "namespace": "default", "object": obj}
    request |= {"kind": {"group": "", "version": "v1", "kind": "ConfigMap"}}
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    try:
        with pytest.raises(ShutdownTimedOut, match=r"thread of .*Work\.block"):
            await _serve_until_begun(
                manager,
                work,
                lambda: _requested(
                    f"https://127.0.0.1:{manager.webhook_port}/validate--v1-configmap", json=review, ssl=False
                ),
            )
    finally:
        work.release.set()
