"""Inbound HTTP calls: what is refused, what is bounded, and what is queued."""

import asyncio
import gzip
import hashlib
import hmac
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from kaito.apiserver import ApiServer
from kaito.runtime.cache import Cached, Index
from kaito.runtime.controller import Controller
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.meta import ObjectKey, ObjectMeta
from kaito.runtime.reconcile import Request
from kaito.runtime.source import Inbound, InboundCall, Reply, is_signed
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import InMemoryTransport, World

SECRET = b"shared secret"
PATH = "/hooks/dns"


def signed(body: bytes, secret: bytes = SECRET) -> dict[str, str]:
    return {"X-Signature": "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()}


def authentic(call: InboundCall) -> bool:
    return is_signed(call, SECRET, "x-signature")


def truthy(_: InboundCall) -> Any:
    return "yes"


by_zone = Index(ConfigMap, lambda found: [found.data["zone"]] if "zone" in found.data else [], name="by-zone")


async def zone(call: InboundCall) -> list[ObjectKey]:
    return [found.key for found in call.view.list(ConfigMap, index=by_zone(call.json()["zone"]))]


class Runs:
    """A reconcile function that writes down its keys."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def __call__(self, request: Request[ConfigMap]) -> None:
        self.keys.append(str(request.key))


def controller(runs: Runs, function: Any = zone, **options: Any) -> Controller[ConfigMap]:
    options.setdefault("authenticate", authentic)
    declared = Controller(ConfigMap, runs, cache=[Cached(ConfigMap, indexes=[by_zone])])
    return declared.receives(Inbound(PATH, function, **options))


def put(world: World, name: str, zone: str) -> None:
    world.put(ConfigMap(metadata=ObjectMeta(name=name), data={"zone": zone}))


async def post(world: World, body: bytes, headers: dict[str, str] | None = None) -> int:
    return (await world.call(PATH, body, headers=signed(body) if headers is None else headers)).status


@pytest.mark.conformance("inbound-1")
async def test_an_authentic_call_queues_the_keys_of_its_function(world: World) -> None:
    runs = Runs()
    for name, of in (("a", "x"), ("b", "y"), ("c", "x")):
        put(world, name, of)
    async with world.manager(controller(runs)) as manager:
        await world.settle()
        runs.keys.clear()
        assert await post(world, b'{"zone": "x"}') == 202
        await world.settle()
        assert runs.keys == ["default/a", "default/c"]
        assert world.reconciles()[-1].causes == (f"inbound  default/c ({PATH})",)
        total = "kaito_runtime_inbound_calls_total"
        assert manager.metrics.value(total, controller="configmap", path=PATH, code="202") == 1


@pytest.mark.conformance("inbound-1")
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-signature": ""},
        {"x-signature": "sha256="},
        {"x-signature": "sha256=é"},
        signed(b"{}", b"another"),
        signed(b"x"),
    ],
)
async def test_a_call_that_is_not_authentic_reaches_nothing(world: World, headers: dict[str, str]) -> None:
    reached: list[InboundCall] = []
    async with world.manager(controller(Runs(), reached.append)):
        await world.settle()
        assert await post(world, b"{}", headers) == 401
    assert reached == []


async def test_an_authentication_that_returns_a_truthy_value_is_not_enough(world: World) -> None:
    async with world.manager(controller(Runs(), authenticate=truthy)):
        await world.settle()
        assert await post(world, b'{"zone": "x"}') == 401


def test_an_empty_secret_signs_nothing() -> None:
    body = b"{}"
    headers = {name.lower(): text for name, text in signed(body, b"").items()}
    call = InboundCall(method="POST", path=PATH, headers=headers, query={}, body=body, view=None)  # type: ignore[arg-type]
    assert not is_signed(call, b"", "X-Signature")


@pytest.mark.conformance("inbound-2")
async def test_before_the_caches_have_synced_the_answer_is_503(world: World) -> None:
    world.lag(ConfigMap, 0)
    fault = world.fail_next("list", ConfigMap, hang=True, times=None)
    watch = world.fail_next("watch", ConfigMap, hang=True, times=None)
    manager = world.manager(controller(Runs()))
    async with TaskScope("test") as scope:
        scope.spawn(manager.start(), name="manager")
        await asyncio.sleep(5)
        reply = await world.call(PATH, b"{}", headers=signed(b"{}"))
        assert (reply.status, reply.text) == (503, "caches are not synced")
        assert reply.headers == {"retry-after": "5"}
        world.heal(fault, watch)
        await asyncio.sleep(100)
        assert await post(world, b'{"zone": "x"}') == 202


@pytest.mark.conformance("inbound-2")
async def test_a_standby_refuses_so_that_no_change_is_lost(world: World) -> None:
    put(world, "a", "x")
    first, second = Runs(), Runs()
    async with world.manager(controller(first), lease="op", name="one") as one:
        await one.wait_elected()
        async with world.manager(controller(second), lease="op", name="two") as two:
            await world.advance(5)
            (endpoint,) = two.inbound

            async def read(_: int) -> bytes:
                return b""

            reply = await endpoint.handle("POST", headers={}, query={}, read=read)
            assert (reply.status, reply.text) == (503, "this replica is not the leader")
            first.keys.clear()
            assert await post(world, b'{"zone": "x"}') == 202  # the leader's
            await world.settle()
            assert (first.keys, second.keys) == (["default/a"], [])


@pytest.mark.conformance("inbound-3")
async def test_bodies_calls_and_pending_keys_are_bounded(world: World) -> None:
    hold = asyncio.Event()

    async def wait(_: InboundCall) -> None:
        await hold.wait()

    async with world.manager(controller(Runs(), wait, max_calls=2, max_bytes=10)):
        await world.settle()
        assert await post(world, b"x" * 11) == 413
        async with TaskScope("test") as scope:
            calls = [scope.spawn(post(world, b"x"), name=str(number)) for number in range(3)]
            await asyncio.sleep(1)
            assert [call.result() for call in calls if call.done()] == [429]
            hold.set()
            assert sorted([await call for call in calls]) == [202, 202, 429]

    for number in range(3):
        put(world, f"c{number}", "x")

    async def hang(_: Request[ConfigMap]) -> None:
        await asyncio.Event().wait()

    declared = Controller(ConfigMap, hang, cache=[Cached(ConfigMap, indexes=[by_zone])])
    async with world.manager(declared.receives(Inbound(PATH, zone, authenticate=authentic, max_pending=2))):
        await asyncio.sleep(1)  # one key is processed, two are ready
        assert await post(world, b'{"zone": "x"}') == 429


@pytest.mark.conformance("inbound-3")
async def test_a_call_that_takes_too_long_is_503(world: World) -> None:
    async def hang(_: InboundCall) -> None:
        await asyncio.Event().wait()

    async with world.manager(controller(Runs(), hang, timeout=3)):
        await world.settle()
        assert await post(world, b"{}") == 503
        assert world.now.second == 3


@pytest.mark.conformance("inbound-3")
async def test_a_body_that_never_ends_is_503_and_its_place_is_free_again(world: World) -> None:
    async def endless(_: int) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    async with world.manager(controller(Runs(), timeout=3, max_calls=1)) as manager:
        await world.settle()
        (endpoint,) = manager.inbound
        reply = await endpoint.handle("POST", headers={}, query={}, read=endless)
        assert (reply.status, reply.text) == (503, "timed out")
        assert await post(world, b'{"zone": "x"}') == 202


async def cancelled(_: InboundCall) -> None:
    raise asyncio.CancelledError


RESULTS: Sequence[tuple[Callable[[InboundCall], Any], int, str]] = [
    (zone, 400, "the body is not JSON"),
    (lambda call: call.lifespan(int), 500, "internal error"),
    (lambda call: ["default/a"], 500, "internal error"),
    (cancelled, 500, "internal error"),
    (lambda call: Reply(200, call.query["challenge"]), 200, "c"),
    (lambda call: None, 202, ""),
    (lambda call: ObjectKey("default", "missing"), 202, ""),
]


@pytest.mark.parametrize(("function", "status", "text"), RESULTS)
async def test_results_of_the_function(world: World, function: Any, status: int, text: str) -> None:
    runs = Runs()
    async with world.manager(controller(runs, function)) as manager:
        await world.settle()
        reply = await world.call(PATH, b"{", headers=signed(b"{"), query={"challenge": "c"})
        assert (reply.status, reply.text) == (status, text)
        await world.settle()
        assert sum(len(queue) + queue.delayed for queue in manager.queues) == 0
    assert runs.keys == []


@pytest.mark.conformance("inbound-2")
async def test_a_call_during_the_stop_is_503_because_its_keys_would_be_dropped(world: World) -> None:
    put(world, "a", "x")
    released = asyncio.Event()

    async def slow(_: InboundCall) -> ObjectKey:
        await released.wait()
        return ObjectKey("default", "a")

    manager = world.manager(controller(Runs(), slow))
    async with TaskScope("test") as scope:
        async with manager:
            await world.settle()
            call = scope.spawn(world.call(PATH, b"", headers=signed(b"")), name="call")
            await asyncio.sleep(1)
        released.set()
        reply = await call
        assert (reply.status, reply.text) == (503, "stopping")


async def test_another_method_is_405(world: World) -> None:
    async with world.manager(controller(Runs())):
        reply = await world.call(PATH, method="GET")
        assert (reply.status, reply.headers) == (405, {"allow": "POST"})


async def test_an_unknown_path_is_an_error_of_the_test(world: World) -> None:
    async with world.manager(controller(Runs())):
        with pytest.raises(LookupError, match="/other"):
            await world.call("/other")


@asynccontextmanager
async def served(*controllers: Controller[ConfigMap]) -> AsyncGenerator[tuple[Manager, aiohttp.ClientSession]]:
    settings = Settings(metrics_bind_address="127.0.0.1:0", health_probe_bind_address="127.0.0.1:0")
    transport = InMemoryTransport(ApiServer(seed=1))
    async with (
        Manager(settings, controllers=controllers, transport=transport, name="hooks") as manager,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
    ):
        yield manager, session


@pytest.mark.conformance("inbound-1")
async def test_it_is_served_over_http() -> None:
    async with served(controller(Runs(), max_bytes=100)) as (manager, session):
        url = f"http://127.0.0.1:{manager.health_port}{PATH}"
        body = b'{"zone": "x"}'
        async with session.post(url, data=body, headers=signed(body)) as response:
            assert response.status == 202
        async with session.post(url, data=body) as response:
            assert (response.status, await response.text()) == (401, "not authenticated\n")

        async def stream() -> AsyncGenerator[bytes]:
            for _ in range(10):
                yield b"x" * 50

        for data in (b"x" * 101, stream()):
            async with session.post(url, data=data) as response:
                assert response.status == 413
        async with session.get(url) as response:
            assert response.status == 405
        small = gzip.compress(body * 1000)
        async with session.post(url, data=small, headers={"content-encoding": "gzip"} | signed(small)) as response:
            assert response.status == 400  # the bytes are signed and small enough, and they are not JSON
        async with session.get(f"http://127.0.0.1:{manager.health_port}/healthz") as response:
            assert response.status == 200


async def test_it_cannot_be_added_to_a_manager_that_serves_already(world: World) -> None:
    async with world.manager() as manager:
        with pytest.raises(ConfigurationError, match="add it before the manager starts"):
            manager.add(controller(Runs()))


WRONG: Sequence[tuple[Callable[[], object], str]] = [
    (lambda: Inbound(PATH, zone, authenticate=authentic, max_bytes=0), "max_bytes=0"),
    (lambda: Inbound(PATH, zone, authenticate=authentic, timeout=0), "timeout=0"),
    (lambda: Inbound(PATH, zone, authenticate=authentic, methods="PUT"), r"write methods=\['PUT'\]"),
    (lambda: Inbound(PATH, zone, authenticate=None), "functions of the call"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("declare", "message"), WRONG)
def test_wrong_declarations_are_refused(declare: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        declare()


async def test_two_controllers_cannot_serve_one_path(world: World) -> None:
    settings = Settings(metrics_bind_address="0", health_probe_bind_address="127.0.0.1:0")
    second = Controller(ConfigMap, Runs(), name="second").receives(Inbound(PATH, zone, authenticate=authentic))
    with pytest.raises(ConfigurationError, match="something is served there already"):
        async with world.manager(controller(Runs()), second, settings=settings):
            pytest.fail("started")
