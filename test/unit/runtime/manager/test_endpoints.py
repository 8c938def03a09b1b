"""Probes, metrics and dumps over real HTTP on 127.0.0.1."""

import asyncio
import json
import re
import tracemalloc
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from kaito.apiserver import ApiServer, Fault
from kaito.runtime.controller import Controller
from kaito.runtime.errors import ConfigurationError, Terminal
from kaito.runtime.health import Checks
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.reconcile import Again, Request
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import InMemoryTransport

LOCAL = Settings(metrics_bind_address="127.0.0.1:0", health_probe_bind_address="127.0.0.1:0", debug_endpoints=True)


async def reconcile(request: Request[ConfigMap]) -> Again | None:
    return Again(600, "nothing to do")


def manager_for(server: ApiServer, settings: Settings = LOCAL) -> Manager:
    return Manager(
        settings, controllers=[Controller(ConfigMap, reconcile)], transport=InMemoryTransport(server), name="probed"
    )


@asynccontextmanager
async def http() -> AsyncGenerator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


async def get(session: aiohttp.ClientSession, port: int | None, path: str) -> tuple[int, str]:
    async with session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


@pytest.mark.conformance(42)
async def test_during_the_cache_sync_the_process_is_alive_but_not_ready() -> None:
    server = ApiServer(seed=1)
    fault = server.inject(Fault(kind="ConfigMap", times=None, status=403, message="configmaps is forbidden"))
    manager = manager_for(server)
    async with TaskScope("test") as scope, http() as session:
        scope.spawn(manager.start(), name="manager")
        while manager.health_port is None:  # noqa: ASYNC110 - bound within the start of the manager
            await asyncio.sleep(0)
        port = manager.health_port
        assert await get(session, port, "/healthz") == (200, "ok")
        status, text = await get(session, port, "/readyz")
        assert status == 500
        assert "[-]caches failed: ConfigMap: " in text
        while "configmaps is forbidden" not in text:
            status, text = await get(session, port, "/readyz/caches")
        assert status == 500
        server.faults.remove(fault)
        while (await get(session, port, "/readyz"))[0] != 200:  # noqa: ASYNC110 - polled, as the kubelet does
            await asyncio.sleep(0.05)
        status, text = await get(session, port, "/readyz?verbose")
        assert text == "[+]caches ok\n[+]controllers ok\nreadyz check passed\n"
        assert await get(session, port, "/readyz/caches") == (200, "ok")
        assert (await get(session, port, "/readyz/nonsense"))[0] == 404
        assert (await get(session, port, "/healthz?verbose"))[1].startswith("[+]loop ok\n[+]workers ok\n[+]lease ok")


async def test_the_failures_page_lists_failing_keys() -> None:
    async def refuse(_: Request[ConfigMap]) -> None:
        message = "no such theme"
        raise Terminal(message)

    controller = Controller(ConfigMap, refuse, name="themes")
    manager = Manager(LOCAL, controllers=[controller], transport=InMemoryTransport(ApiServer(seed=1)), name="probed")
    async with manager, http() as session:
        assert await get(session, manager.metrics_port, "/debug/failures") == (200, "{}")
        await manager.client.create(ConfigMap(metadata=ObjectMeta(name="a", namespace="default")))
        while (text := (await get(session, manager.metrics_port, "/debug/failures"))[1]) == "{}":  # noqa: ASYNC110 - polled over HTTP
            await asyncio.sleep(0)
    (row,) = json.loads(text)["themes"]
    shown = {name: row[name] for name in ("key", "failures", "given_up", "message")}
    assert shown == {"key": "default/a", "failures": 1, "given_up": True, "message": "Terminal: no such theme"}


async def test_metrics_and_dumps_show_what_goes_on() -> None:
    server = ApiServer(seed=1)
    async with manager_for(server) as manager, http() as session:
        await manager.client.create(ConfigMap(metadata=ObjectMeta(name="a", namespace="default")))
        port = manager.metrics_port
        text = ""
        while 'controller_runtime_reconcile_total{controller="configmap",result="requeue_after"} 1.0' not in text:
            await asyncio.sleep(0)
            _, text = await get(session, port, "/metrics")
        for line in (
            'workqueue_depth{controller="configmap",name="configmap",priority="0"} 0.0',
            'workqueue_adds_total{controller="configmap",name="configmap"} 1.0',
            'kaito_runtime_cache_objects{kind="ConfigMap"} 1.0',
            'rest_client_requests_total{code="201",host="in-memory",method="POST"} 1.0',
            'controller_runtime_reconcile_total{controller="configmap",result="error"} 0.0',
            "process_resident_memory_bytes",
        ):
            assert line in text, line
        _, queues = await get(session, port, "/debug/queues")
        assert "create ConfigMap default/a" in queues or "again ConfigMap default/a (nothing to do)" in queues
        assert '"state": "waiting"' in queues
        assert re.search(r"ConfigMap default/a.*, \d+\.\d s ago", queues)
        _, tasks = await get(session, port, "/debug/tasks")
        assert "controller.configmap.worker-0" in tasks
        assert '"watching"' in (await get(session, port, "/debug/cache"))[1]
        assert "tracemalloc is off" in (await get(session, port, "/debug/memory"))[1]
        kept: list[bytes] = []

        async def allocate() -> None:
            await asyncio.sleep(0.05)
            kept.extend(bytes(1000) for _ in range(1000))

        (status, text), _ = await asyncio.gather(get(session, port, "/debug/memory?seconds=0.2"), allocate())
        assert status == 200
        assert "test_endpoints.py" in text
        assert (await get(session, port, "/debug/memory?seconds=forever"))[0] == 400
        assert not tracemalloc.is_tracing()


async def test_debugging_is_off_unless_asked_for() -> None:
    quiet = LOCAL.model_copy(update={"debug_endpoints": False})
    async with manager_for(ApiServer(seed=1), quiet) as manager, http() as session:
        assert (await get(session, manager.metrics_port, "/metrics"))[0] == 200
        for path in ("tasks", "queues", "cache", "memory"):
            assert (await get(session, manager.metrics_port, f"/debug/{path}"))[0] == 404


async def test_users_serve_their_own_beside_metrics_and_probes() -> None:
    async def plan(request: web.Request) -> web.Response:
        return web.Response(text=f"{request.method} {request.query.get('for', 'all')}")

    async def alive(_: web.Request) -> web.Response:
        return web.Response(text="yes")

    def not_async(_: web.Request) -> None:
        return None

    manager = manager_for(ApiServer(seed=1))
    manager.serve("/plan", plan)
    manager.serve("/plan", alive, on="health")
    for path, handler, on, message in (
        ("/metrics", plan, "metrics", "the manager's own"),
        ("/debug/mine", plan, "metrics", "the manager's own"),
        ("/healthz/mine", plan, "health", "the manager's own"),
        ("/plan", plan, "metrics", "something is served there already"),
        ("plan", plan, "metrics", "begins with a slash"),
        ("/", plan, "metrics", "begins with a slash"),
        ("/other", not_async, "metrics", "not an async function"),
        ("/other", plan, "webhooks", "neither 'metrics' nor 'health'"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            manager.serve(path, handler, on=on)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] -- the point
    manager.serve("/metrics", alive, on="health")
    async with manager, http() as session:
        assert await get(session, manager.metrics_port, "/plan?for=me") == (200, "GET me")
        assert await get(session, manager.health_port, "/plan") == (200, "yes")
        assert await get(session, manager.health_port, "/metrics") == (200, "yes")
        with pytest.raises(ConfigurationError, match="has started"):
            manager.serve("/late", plan)


async def test_endpoints_can_be_off_and_a_taken_port_is_a_clear_error() -> None:
    server = ApiServer(seed=1)
    off = Settings(metrics_bind_address="0", health_probe_bind_address="0")
    async with manager_for(server, off) as manager:
        assert manager.health_port is None
        assert manager.metrics_port is None
    async with manager_for(server) as manager:
        taken = Settings(metrics_bind_address="0", health_probe_bind_address=f"127.0.0.1:{manager.health_port}")
        with pytest.raises(ConfigurationError, match="cannot serve health on"):
            await manager_for(server, taken).start()


def test_checks_report_as_kubernetes_components_do() -> None:
    checks = Checks("readyz")
    checks.add("good", lambda: None)
    checks.add("bad", lambda: "the database is gone")

    def broken() -> str | None:
        message = "oops"
        raise ValueError(message)

    checks.add("broken", broken)
    report = checks.report()
    assert report.status == 500
    assert report.text == (
        "[+]good ok\n[-]bad failed: the database is gone\n[-]broken failed: ValueError: oops\nreadyz check failed\n"
    )
    assert checks.report(exclude=["bad", "broken"]).text == "ok"
    assert "no check is named x" in checks.report(exclude=["bad", "broken", "x"], verbose=True).text
    one = checks.report_one("bad")
    assert one is not None
    assert (one.status, one.text) == (500, "bad failed: the database is gone\n")
    assert checks.report_one("unknown") is None
    checks.remove("bad")
    checks.remove("broken")
    assert checks.report().status == 200
    with pytest.raises(ConfigurationError):
        checks.add("good", lambda: None)
