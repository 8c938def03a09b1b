"""Recorded answers of Azure: the provider understands them, and the simulator gives answers of the same shape.

The provider is replayed the table through a local HTTP server; the simulator's answers are compared with
it by status, headers, keys and types.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web

from kaito.cloud.azure.provider import AzureProvider
from kaito.cloud.azure.settings import AzureSettings
from kaito.cloud.azure.simulator import Simulator, SimulatorSettings, named
from kaito.cloud.azure.simulator.server import serve
from kaito.cloud.errors import CloudError
from kaito.cloud.metrics import CloudMetrics
from kaito.cloud.provider import InstanceOwner, InstanceSpec
from test.contract.azure_shapes import (
    CLUSTER,
    FAILURES,
    LOCATION,
    OPERATION,
    POOL,
    REFUSALS,
    RESULT,
    SHAPES,
    SUBSCRIPTION,
    Shape,
)

BY_NAME = {shape.name: shape for shape in SHAPES}
SPEC = InstanceSpec(
    name="ws1", instance_type="Standard_NC6s_v3", owner=InstanceOwner("uid", "Machine", "ws1", "here"), disk_gib=128
)
GIVEN = ("x-ms-request-id", "x-ms-correlation-request-id", "Content-Type")


class Replay:
    """A resource manager that gives recorded answers; those of one address in turn, the last one again and again."""

    def __init__(self, *shapes: Shape) -> None:
        self.url = ""
        self.requested: list[str] = []
        self._shapes = list(shapes)

    async def handle(self, request: web.Request) -> web.Response:
        """The recorded answer to a request."""
        self.requested.append(f"{request.method} {request.raw_path}")
        for shape in self._shapes:
            path, _, query = shape.path.partition("?")
            same_path = path.lower() == request.path.lower()
            if shape.method == request.method and same_path and (not query or query.split("&")[-1] in request.raw_path):
                if sum(other.path == shape.path and other.method == shape.method for other in self._shapes) > 1:
                    self._shapes.remove(shape)
                return self._answer(shape)
        return web.json_response({"error": {"code": "NotFound", "message": "not recorded"}}, status=404)

    def _answer(self, shape: Shape) -> web.Response:
        text = "" if shape.body is None else json.dumps(shape.body).replace("{url}", self.url)
        headers = {name: value.replace("{url}", self.url) for name, value in shape.headers.items()}
        body = {"text": text, "content_type": "application/json"} if text else {}
        return web.Response(status=shape.status, headers=headers, **body)  # type: ignore[arg-type]  # text and its type

    @asynccontextmanager
    async def serve(self) -> AsyncGenerator[AzureProvider]:
        """Listens, and yields a provider that connects to it."""
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        azure = provider_at(self.url)
        try:
            yield azure
        finally:
            await azure.close()
            await runner.cleanup()


def provider_at(url: str) -> AzureProvider:
    settings = AzureSettings(
        subscription_id=SUBSCRIPTION,
        resource_group="kaito",
        cluster="kaito",
        location="eastus",
        endpoint=url,
        credential_mode="fake",
    )
    return AzureProvider(settings, CloudMetrics())


def replay(*names: str) -> Replay:
    return Replay(*(BY_NAME[name] for name in names))


# the provider


async def test_a_list_with_an_empty_second_page_is_read_to_its_end() -> None:
    recorded = replay("list-second-page", "list")
    async with recorded.serve() as azure:
        (found,) = await azure.list()
    assert (found.name, found.state, found.instance_type, found.owner) == ("ws1", "ready", "Standard_NC6s_v3", None)
    assert len(recorded.requested) == 2
    assert "skipToken=100" in recorded.requested[1]
    assert "%24skipToken=100" in recorded.requested[1]
    assert "api-version=2026-08-01" in recorded.requested[1], "our version, not the link's older one"


@pytest.mark.parametrize("name", ["create", "create-spot"])
async def test_a_creation_names_its_operation_and_no_time(name: str) -> None:
    recorded = replay("list-second-page", "list", name, "running", "succeeded")
    async with recorded.serve() as azure:
        started = await azure.create(SPEC)
        assert started.status_url == f"{recorded.url}{OPERATION}"
        assert started.retry_after is None
        first = await azure.operation_status(started.status_url)
        second = await azure.operation_status(started.status_url)
    assert (first.state, first.retry_after) == ("running", None)
    assert second.state == "succeeded"
    assert recorded.requested[-1] == f"GET {OPERATION}", "byte for byte"


async def test_a_deletion_names_its_operation() -> None:
    recorded = replay("delete", "result-running", "result")
    async with recorded.serve() as azure:
        started = await azure.delete("ws1")
        assert started is not None
        assert started.status_url == f"{recorded.url}{OPERATION}"
        assert (await azure.operation_status(f"{recorded.url}{RESULT}")).state == "running"
        assert (await azure.operation_status(f"{recorded.url}{RESULT}")).state == "succeeded"
    assert "ignore-pod-disruption-budget=true" in recorded.requested[0]


async def test_what_is_not_there_is_deleted() -> None:
    async with replay("delete-absent").serve() as azure:
        assert await azure.delete("ws1") is None


async def test_a_failed_operation_and_a_failed_pool_tell_why() -> None:
    failed = BY_NAME["failed-pool"]
    listing = Shape("list", "S5", "GET", f"{CLUSTER}/agentPools", 200, {"value": [failed.body]})
    recorded = Replay(listing, BY_NAME["failed"])
    async with recorded.serve() as azure:
        progress = await azure.operation_status(f"{recorded.url}{OPERATION}")
        found = await azure.get("ws1")
    assert (progress.state, type(progress.error).__name__) == ("failed", "InsufficientCapacity")
    assert found is not None
    assert (found.state, type(found.error).__name__) == ("failed", "InsufficientCapacity")


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_rejection_has_its_reason(name: str) -> None:
    """The simulator's fault of that name, replayed to the provider over HTTP."""
    async with Simulator(SimulatorSettings(speed=3000)) as simulator, serve(simulator) as url:
        azure = provider_at(url)
        simulator.faults.add(named(name, method="PUT"))
        with pytest.raises(CloudError) as refused:
            await azure.create(SPEC)
        await azure.close()
    assert type(refused.value).__name__ == REFUSALS[name][2]


@pytest.mark.parametrize("name", FAILURES)
async def test_a_pool_that_ends_badly_has_its_verdict(name: str) -> None:
    async with Simulator(SimulatorSettings(speed=3000)) as simulator, serve(simulator) as url:
        azure = provider_at(url)
        simulator.faults.add(named(name))
        started = await azure.create(SPEC)
        progress = await azure.operation_status(started.status_url)
        for _ in range(400):
            if progress.state != "running":
                break
            await asyncio.sleep(0.05)
            progress = await azure.operation_status(started.status_url)
        found = await azure.get("ws1")
        await azure.close()
    assert type(progress.error).__name__ == FAILURES[name]
    assert found is not None
    assert type(found.error).__name__ == FAILURES[name], "pool and operation report the same error"


# the simulator


def differences(recorded: Any, given: Any, at: str = "") -> list[str]:
    """Where the recorded answer has something that the simulator's lacks, or of another type."""
    if isinstance(recorded, dict):
        if not isinstance(given, dict):
            return [f"{at}: {given!r} is not an object"]
        wanted, found = cast("dict[str, Any]", recorded), cast("dict[str, Any]", given)
        missing = [f"{at}.{key} is missing" for key in wanted if key not in found]
        return missing + [
            line for key in wanted if key in found for line in differences(wanted[key], found[key], f"{at}.{key}")
        ]
    if isinstance(recorded, list):
        if not isinstance(given, list):
            return [f"{at}: {given!r} is not a list"]
        pairs = zip(cast("list[object]", recorded), cast("list[object]", given), strict=False)
        return [line for one, other in pairs for line in differences(one, other, f"{at}[]")]
    same = type(recorded) is type(given) or (isinstance(recorded, int | float) and isinstance(given, int | float))
    return [] if same else [f"{at}: {given!r} instead of {recorded!r}"]


class Client:
    """Sends bare requests to the simulator."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def send(self, method: str, path: str, body: Any = None) -> tuple[int, Any, Mapping[str, str]]:
        """Status, decoded body (None when empty) and headers."""
        if "api-version=" not in path:
            path += f"{'&' if '?' in path else '?'}api-version=2026-08-01"
        headers = {"Authorization": "Bearer x"}
        async with self._http.request(method, path, json=body, headers=headers) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None, answer.headers


@asynccontextmanager
async def simulated(**changes: Any) -> AsyncGenerator[tuple[Simulator, Client]]:
    async with (
        Simulator(SimulatorSettings.model_validate({"speed": 3000, **changes})) as simulator,
        serve(simulator) as url,
        aiohttp.ClientSession(url) as http,
    ):
        yield simulator, Client(http)


def assert_alike(shape: Shape, status: int, body: Any, headers: Mapping[str, str]) -> None:
    assert status == shape.status
    assert (body is None) == (shape.body is None)
    assert differences(shape.body, body) == []
    assert [name for name in (*shape.headers, *GIVEN[:2]) if name not in headers] == []
    assert [name for name in shape.absent if name in headers] == []
    for name in ("Azure-AsyncOperation", "Location"):
        if name in shape.headers:
            recorded, given = urlsplit(shape.headers[name].format(url="http://x")), urlsplit(headers[name])
            assert given.path.rpartition("/")[0].lower() == recorded.path.rpartition("/")[0].lower()
            assert 3000 < len(headers[name]) < 4100, "as long as the recorded ones"


def properties(**more: Any) -> dict[str, Any]:
    return {"properties": {"count": 1, "vmSize": "Standard_NC6s_v3", "osDiskSizeGB": 128, "mode": "User", **more}}


async def until_state(simulator: Simulator, state: str) -> None:
    for _ in range(2000):
        if simulator.cluster.pools["ws1"].state == state:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"the pool is {simulator.cluster.pools['ws1'].state}, not {state}")


async def test_a_pools_life_has_the_recorded_shapes() -> None:
    async with simulated(speed=600) as (simulator, client):
        created = await client.send("PUT", POOL, properties())
        assert_alike(BY_NAME["create"], *created)
        assert created[1]["properties"]["provisioningState"] == "Creating"
        operation = urlsplit(created[2]["Azure-AsyncOperation"])
        assert_alike(BY_NAME["running"], *await client.send("GET", f"{operation.path}?{operation.query}"))
        await until_state(simulator, "Succeeded")
        assert_alike(BY_NAME["succeeded"], *await client.send("GET", f"{operation.path}?{operation.query}"))
        assert_alike(BY_NAME["pool"], *await client.send("GET", POOL))
        listed = await client.send("GET", f"{CLUSTER}/agentPools")
        assert_alike(BY_NAME["list"], *listed)
        link = urlsplit(str(listed[1]["nextLink"]))
        assert "%24skipToken=" in link.query
        last = await client.send("GET", f"{link.path}?{link.query}")
        assert_alike(BY_NAME["list-second-page"], *last)
        assert last[1] == {"value": []}
        deleted = await client.send("DELETE", f"{POOL}?ignore-pod-disruption-budget=true")
        assert_alike(BY_NAME["delete"], *deleted)
        result = urlsplit(deleted[2]["Location"])
        assert_alike(BY_NAME["result-running"], *await client.send("GET", f"{result.path}?{result.query}"))
        for _ in range(2000):
            if "ws1" not in simulator.cluster.pools:
                break
            await asyncio.sleep(0.01)
        assert_alike(BY_NAME["result"], *await client.send("GET", f"{result.path}?{result.query}"))
        assert_alike(BY_NAME["delete-absent"], *await client.send("DELETE", POOL))


async def test_a_spot_pool_gets_a_label_and_a_taint_by_default() -> None:
    async with simulated() as (simulator, client):
        created = await client.send("PUT", POOL, properties(scaleSetPriority="Spot"))
        assert_alike(BY_NAME["create-spot"], *created)
        given, recorded = created[1]["properties"], BY_NAME["create-spot"].body["properties"]
        assert {key: given[key] for key in ("nodeLabels", "nodeTaints")} == {
            key: recorded[key] for key in ("nodeLabels", "nodeTaints")
        }
        assert simulator.cluster.usages()["lowPriorityCores"][0] == 6
        assert simulator.cluster.usages()["cores"][0] == 0
        assert simulator.cluster.usages()["StandardNCSv3Family"][0] == 0


async def test_an_aborted_pool_stays_and_is_canceled() -> None:
    async with simulated(speed=60) as (simulator, client):
        await client.send("PUT", POOL, properties())
        assert_alike(BY_NAME["abort"], *await client.send("POST", f"{POOL}/abort"))
        await until_state(simulator, "Canceled")
        assert (await client.send("POST", f"{POOL}/abort"))[0] == 204, "nothing is in progress any more"


async def test_failures_have_the_recorded_shapes() -> None:
    async with simulated() as (simulator, client):
        simulator.faults.add(named("sku-not-available"))
        created = await client.send("PUT", POOL, properties())
        await until_state(simulator, "Failed")
        operation = urlsplit(created[2]["Azure-AsyncOperation"])
        assert_alike(BY_NAME["failed"], *await client.send("GET", f"{operation.path}?{operation.query}"))
        assert_alike(BY_NAME["failed-pool"], *await client.send("GET", POOL))


async def test_usages_have_the_recorded_shape_and_low_priority_cores() -> None:
    async with simulated() as (_, client):
        usages = await client.send("GET", BY_NAME["usages"].path)
        assert_alike(BY_NAME["usages"], *usages)
        assert {"cores", "lowPriorityCores"} <= {item["name"]["value"] for item in usages[1]["value"]}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_fault_has_the_recorded_shape(name: str) -> None:
    status, body, _ = REFUSALS[name]
    async with simulated() as (simulator, client):
        simulator.faults.add(named(name, method="PUT"))
        given_status, given, headers = await client.send("PUT", POOL, properties())
    assert given_status == status
    assert differences(body, given) == []
    assert (given.get("error") or given)["code"] == (body.get("error") or body)["code"]
    assert ("Retry-After" in headers) == (status == 429)


@pytest.mark.parametrize(
    ("changes", "status", "code", "target"),
    [
        ({"vmSize": "Standard_Imaginary"}, 400, "BadRequest", "agentPoolProfile.vmSize"),
        ({"availabilityZones": ["9"]}, 400, "AvailabilityZoneNotSupported", "agentPoolProfile.availabilityZone"),
        ({"nodeLabels": {"kubernetes.azure.com/mine": "x"}}, 400, "InvalidParameter", "agentPoolProfile.nodeLabels"),
        ({"nodeLabels": {"kubernetes.io/mine": "x"}}, 400, "InvalidParameter", "agentPoolProfile.nodeLabels"),
    ],
)
async def test_the_simulator_rejects_what_azure_rejects(
    changes: dict[str, Any], status: int, code: str, target: str
) -> None:
    async with simulated() as (_, client):
        given_status, given, _ = await client.send("PUT", POOL, properties(**changes))
    assert (given_status, given["code"], given["target"]) == (status, code, target)


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [("aks", 400, "ErrCode_InsufficientVCPUQuota"), ("compute", 409, "OperationNotAllowed")],
)
async def test_quota_is_rejected_by_aks_or_by_compute(refusal: str, status: int, code: str) -> None:
    async with simulated(quota_refusal=refusal) as (simulator, client):
        simulator.cluster.quota["cores"] = 1
        given_status, given, _ = await client.send("PUT", POOL, properties())
        assert (given_status, (given.get("error") or given)["code"]) == (status, code)
        simulator.cluster.quota["lowprioritycores"] = 1
        spot_status, spot, _ = await client.send("PUT", POOL, properties(scaleSetPriority="Spot"))
        assert (spot_status, (spot.get("error") or spot)["code"]) == (status, code)


async def test_quota_may_fail_a_pool_that_was_accepted() -> None:
    async with simulated(quota_refusal="pool") as (simulator, client):
        simulator.cluster.quota["cores"] = 1
        assert (await client.send("PUT", POOL, properties()))[0] == 201
        await until_state(simulator, "Failed")
        _, given, _ = await client.send("GET", POOL)
    error = given["properties"]["status"]["provisioningError"]
    assert error["code"] == "CreateVMSSAgentPoolFailed"
    assert (
        'Code="OperationNotAllowed" Message="Operation could not be completed as it results in exceeding'
        in error["message"]
    )


async def test_the_etag_changes_with_each_operation() -> None:
    async with simulated() as (simulator, client):
        tags = [(await client.send("PUT", POOL, properties()))[1]["properties"]["eTag"]]
        await until_state(simulator, "Succeeded")
        tags.append((await client.send("GET", POOL))[1]["properties"]["eTag"])
        tags.append((await client.send("PUT", POOL, properties(count=2)))[1]["properties"]["eTag"])
        assert simulator.cluster.pools["ws1"].state == "Scaling"
    assert len(set(tags)) == 3


@pytest.mark.parametrize(
    ("method", "path", "burst"),
    [("GET", f"{CLUSTER}/agentPools", 60), ("PUT", POOL, 20), ("GET", f"{LOCATION}/operations/x", 200)],
)
async def test_the_request_limits_of_aks_hold_at_real_speed(method: str, path: str, burst: int) -> None:
    async with simulated(speed=1) as (simulator, client):
        body = {"properties": {"vmSize": "Standard_Imaginary"}} if method == "PUT" else None
        statuses = [(await client.send(method, path, body))[0] for _ in range(burst)]
        assert 429 not in statuses
        answers = [await client.send(method, path, body) for _ in range(10)]  # some were refilled meanwhile
        status, given, headers = answers[-1]
        assert (status, given["code"]) == (429, "Throttled")
        assert int(headers["Retry-After"]) >= 1
        assert (await client.send("GET", BY_NAME["usages"].path))[0] == 200, "Compute counts apart"
        simulator.reset()
        assert (await client.send(method, path, body))[0] != 429
