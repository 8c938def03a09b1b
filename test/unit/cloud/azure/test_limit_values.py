"""Defaults of the settings, rate limits, intervals of lists, credentials, and which requests a fence checks."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from azure.core.rest import HttpRequest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from kaito.cloud.azure import rate_limits
from kaito.cloud.azure.arm import ArmClient
from kaito.cloud.azure.credential import FakeCredential, make_credential
from kaito.cloud.azure.operations import is_same_origin
from kaito.cloud.azure.pool_lister import ListRequest, PoolLister
from kaito.cloud.azure.provider import AzureProvider
from kaito.cloud.azure.rate_limits import RateLimit, RateLimits, pause
from kaito.cloud.azure.settings import AzureSettings
from kaito.cloud.azure.simulator.http import ArmRequest, ArmResponse
from kaito.cloud.azure.simulator.inprocess import InProcessTransport
from kaito.cloud.azure.transport import ForeignUrl, guarded_transport
from kaito.cloud.errors import CloudUnavailable, OperationCanceled, OperationFailed, Throttled
from kaito.cloud.metrics import CloudMetrics
from kaito.cloud.provider import Instance, InstanceOwner, InstanceSpec, OperationStatus, StartedOperation
from kaito.runtime.clock import monotonic
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.tasks import TaskScope

pytestmark = pytest.mark.virtual_time

NEEDED: dict[str, Any] = {"subscription_id": "s", "resource_group": "g", "cluster": "c"}
LOCAL: dict[str, Any] = {**NEEDED, "endpoint": "http://arm", "credential_mode": "fake"}


def test_settings_have_these_defaults() -> None:
    assert AzureSettings(**NEEDED).model_dump() == {
        **NEEDED,
        "location": "",
        "endpoint": "https://management.azure.com",
        "credential_mode": "workload",
        "client_id": "",
        "tenant_id": "",
        "api_version": "2026-08-01",
        "requests_per_second": 10.0,
        "request_burst": 200,
        "request_timeout_seconds": 60.0,
        "attempts": 3,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"subscription_id": ""},
        {"resource_group": " "},
        {"cluster": ""},
        {"requests_per_second": 0},
        {"request_burst": 0},
        {"request_timeout_seconds": 0},
        {"attempts": 0},
        {"credential_mode": "other"},
        {"unknown": "x"},
        {"endpoint": "http://arm"},
        {"endpoint": "http://arm", "credential_mode": "managed"},
    ],
)
def test_settings_that_cannot_work_are_rejected(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AzureSettings(**{**NEEDED, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"requests_per_second": 0.1, "request_burst": 1, "request_timeout_seconds": 0.1, "attempts": 1},
        {"endpoint": "http://arm", "credential_mode": "fake"},
        {"endpoint": "https://arm", "credential_mode": "fake"},
        {"subscription_id": " s\n"},
    ],
)
def test_settings_at_their_limits_are_accepted(changes: dict[str, Any]) -> None:
    assert AzureSettings(**{**NEEDED, **changes}).subscription_id == "s"


@pytest.mark.parametrize(
    ("mode", "ids", "expected"),
    [
        ("default", {}, "DefaultAzureCredential"),
        ("managed", {"client_id": "c"}, "ManagedIdentityCredential"),
        ("managed", {}, "ManagedIdentityCredential"),
        ("fake", {}, "FakeCredential"),
    ],
)
def test_each_mode_has_its_credential(mode: Any, ids: dict[str, str], expected: str) -> None:
    assert type(make_credential(mode, **ids)).__name__ == expected


def test_a_workload_identity_has_the_ids_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text("t")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(token))
    monkeypatch.delenv("AZURE_CLIENT_ID", raising=False)
    monkeypatch.delenv("AZURE_TENANT_ID", raising=False)
    assert type(make_credential("workload", client_id="c", tenant_id="t")).__name__ == "WorkloadIdentityCredential"
    ids_and_missing: dict[str, dict[str, str]] = {
        "AZURE_TENANT_ID not set": {"client_id": "c"},
        "AZURE_CLIENT_ID not set": {"tenant_id": "t"},
        "AZURE_CLIENT_ID, AZURE_TENANT_ID not set": {},
    }
    for missing, ids in ids_and_missing.items():
        with pytest.raises(ConfigurationError, match=f"workload identity is not configured: {missing}"):
            make_credential("workload", **ids)
    monkeypatch.setenv("AZURE_CLIENT_ID", "c")
    monkeypatch.setenv("AZURE_TENANT_ID", "t")
    assert type(make_credential("workload")).__name__ == "WorkloadIdentityCredential"


async def test_the_fake_token_does_not_expire() -> None:
    token = await FakeCredential().get_token("scope")
    assert (token.token, token.expires_on) == ("fake", 4102444800)


async def test_rate_limits_are_those_of_aks() -> None:
    assert RateLimit(200, 2) == rate_limits.OPERATIONS
    assert RateLimit(20, 1 / 60) == rate_limits.PUT_POOL
    assert RateLimit(60, 1) == rate_limits.POOLS
    assert RateLimit(40, 4) == rate_limits.COMPUTE
    limits = RateLimits(RateLimit(7, 3))
    rates = [(bucket.tokens, bucket.rate) for bucket in (limits.operations, limits.pools, limits.compute)]
    assert rates == [(200, 2), (60, 1), (40, 4)]
    assert (limits.overall.tokens, limits.overall.rate) == (7, 3)
    assert (limits.put("a").tokens, limits.put("a").rate) == (20, 1 / 60)
    assert limits.put("a") is limits.put("a")
    assert limits.put("a") is not limits.put("b")


async def test_the_clock_of_a_simulator_speeds_all_limits_up() -> None:
    limits = RateLimits(RateLimit(7, 3))
    before = limits.put("a")
    limits.set_clock_speed(10)
    assert [bucket.rate for bucket in (limits.operations, limits.pools, limits.compute, limits.overall)] == [
        20,
        10,
        40,
        30,
    ]
    assert before.rate == limits.put("b").rate == pytest.approx(10 / 60)


@pytest.mark.parametrize(
    ("retry_after", "left"), [(None, 5), (0, 0), (-3, 0), (5, 5), (6, 6), (120, 120), (121, 120), (3600, 120)]
)
async def test_a_429_pauses_requests_for_up_to_2_minutes(retry_after: float | None, left: float) -> None:
    bucket = RateLimits(RateLimit(7, 3)).operations
    pause(bucket, retry_after)
    if left <= 5:
        await bucket.take()
        assert monotonic() == pytest.approx(max(left, 0.5), abs=0.01), "the bucket is empty after a 429"
        return
    with pytest.raises(Throttled) as caught:
        await bucket.take()
    assert caught.value.retry_after == pytest.approx(left)
    assert str(caught.value) == "Azure throttles requests of this kind (429)"


async def test_limits_of_pools_that_are_not_used_are_dropped_above_1000() -> None:
    limits = RateLimits(RateLimit(7, 3))
    kept = [limits.put(f"p{number}") for number in range(1000)]
    assert limits.put("p0") is kept[0]
    kept[1].pause(60)
    limits.put("another")
    assert limits.put("p1") is kept[1], "a limit in use is kept"
    assert limits.put("p0") is not kept[0]


@pytest.mark.parametrize(
    ("url", "endpoint", "expected"),
    [
        ("https://arm/x", "https://arm", True),
        ("https://arm:443/x", "https://arm", True),
        ("http://arm:80/x", "http://arm", True),
        ("https://arm:80/x", "https://arm", False),
        ("http://arm:443/x", "http://arm", False),
        ("HTTPS://ARM/x", "https://arm", True),
        ("http://arm/x", "https://arm", False),
        ("https://arm:x/", "https://arm", False),
        ("https://user@arm/x", "https://arm", False),
        ("https:///x", "https://", False),
        ("/x", "https://arm", False),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, endpoint: str, *, expected: bool) -> None:
    assert is_same_origin(url, endpoint) is expected


class Recorder:
    """An ARM that records requests and returns one response."""

    def __init__(self, response: ArmResponse | None = None) -> None:
        self.response = response or ArmResponse(200, {})
        self.requests: list[ArmRequest] = []

    async def handle(self, request: ArmRequest) -> ArmResponse:
        self.requests.append(request)
        return self.response


@pytest.mark.parametrize(
    ("method", "checks"),
    [("GET", 0), ("get", 0), ("HEAD", 0), ("OPTIONS", 0), ("PUT", 1), ("POST", 1), ("PATCH", 1), ("DELETE", 1)],
)
async def test_the_fence_is_checked_before_each_write(method: str, checks: int) -> None:
    counted: list[int] = []
    server = Recorder()
    transport = guarded_transport(
        "http://arm", transport=InProcessTransport(server), fence=lambda: counted.append(len(server.requests))
    )
    await transport.send(HttpRequest(method, "http://arm/x"))
    assert counted == [0] * checks
    with pytest.raises(ForeignUrl, match="request to http://other/x rejected: it is not at http://arm"):
        await transport.send(HttpRequest(method, "http://other/x?secret=1"))
    assert len(server.requests) == 1


def client(server: Recorder, metrics: CloudMetrics | None = None, **changes: Any) -> ArmClient:
    return ArmClient(
        AzureSettings(**{**LOCAL, **changes}), metrics or CloudMetrics(), transport=InProcessTransport(server)
    )


REMAINING = "x-ms-ratelimit-remaining-subscription"


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        (f"{REMAINING}-reads", "reads"),
        (f"{REMAINING}-writes", "writes"),
        (f"{REMAINING}-deletes", "deletes"),
        (f"{REMAINING}-global-reads", "reads"),
        (f"{REMAINING}-global-writes", "global-writes"),
        (f"{REMAINING}-global-deletes", "global-deletes"),
    ],
)
async def test_the_remaining_requests_are_a_metric(header: str, kind: str) -> None:
    metrics, registry = CloudMetrics(), CollectorRegistry()
    metrics.register(registry)
    for value in ("11999", "many"):
        await client(Recorder(ArmResponse(200, {}, {header: value})), metrics).fetch("http://arm/x")
    assert registry.get_sample_value("gpu_provisioner_arm_ratelimit_remaining", {"kind": kind}) == 11999


@pytest.mark.parametrize(
    ("speed", "mode", "rate"),
    [
        ("60", "fake", 60),
        ("0", "fake", 1),
        ("-1", "fake", 1),
        ("inf", "fake", 1),
        ("x", "fake", 1),
        ("60", "default", 1),
    ],
)
async def test_only_a_simulator_speeds_the_limits_up(speed: str, mode: str, rate: float) -> None:
    endpoint = "http://arm" if mode == "fake" else "https://arm"
    arm = client(Recorder(), endpoint=endpoint, credential_mode=mode)
    response = type("Pipeline", (), {"http_response": type("Http", (), {"headers": {"x-simulator-speed": speed}})})
    arm._on_response(response)  # pyright: ignore[reportPrivateUsage] -- a hook that the SDK calls
    assert arm.limits.pools.rate == rate


async def test_requests_name_the_application_and_the_token() -> None:
    server = Recorder()
    await client(server).fetch("http://arm/x")
    (request,) = server.requests
    assert request.headers["user-agent"].startswith("kaito-gpu-provisioner ")
    assert request.headers["authorization"] == "Bearer fake"


POOLS = "http://arm/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/c"
STATUS = "http://arm/subscriptions/s/providers/Microsoft.ContainerService/locations/eastus/operations/1"
SPEC = InstanceSpec(
    name="ws1", instance_type="Standard_NC6s_v3", owner=InstanceOwner("u", "NodeClaim", "ws1", "here"), disk_gib=100
)


def provider(server: Recorder, **changes: Any) -> AzureProvider:
    return AzureProvider(AzureSettings(**{**LOCAL, **changes}), CloudMetrics(), transport=InProcessTransport(server))


@pytest.mark.parametrize(
    ("status", "body", "headers", "expected"),
    [
        (200, {"status": "Succeeded"}, {}, OperationStatus("succeeded")),
        (200, {"status": "succeeded"}, {"Retry-After": "9"}, OperationStatus("succeeded")),
        (200, None, {}, OperationStatus("succeeded")),
        (200, {"status": "InProgress"}, {"Retry-After": "9"}, OperationStatus("running", retry_after=9)),
        (200, {"status": "InProgress"}, {"Retry-After": "999"}, OperationStatus("running", retry_after=120)),
        (200, {"status": "InProgress"}, {}, OperationStatus("running")),
        (200, {}, {}, OperationStatus("running")),
        (202, {"status": "Succeeded"}, {"Retry-After": "9"}, OperationStatus("running", retry_after=9)),
        (202, None, {}, OperationStatus("running")),
        (404, None, {}, OperationStatus("lost")),
    ],
)
async def test_states_of_an_operation(
    status: int, body: object, headers: dict[str, str], expected: OperationStatus
) -> None:
    server = Recorder(ArmResponse(status, body, headers))
    assert await provider(server).operation_status(STATUS) == expected


@pytest.mark.parametrize(
    ("body", "state", "kind", "text"),
    [
        ({"status": "Failed"}, "failed", OperationFailed, "the operation failed"),
        ({"status": "Failed", "error": {"code": "New", "message": "m"}}, "failed", OperationFailed, "New: m"),
        ({"status": "Canceled"}, "canceled", OperationCanceled, "Canceled: the operation was canceled"),
        ({"status": "Canceled", "error": {"code": "New", "message": "m"}}, "canceled", OperationCanceled, "New: m"),
    ],
)
async def test_an_operation_that_ended_has_its_error(
    body: object, state: str, kind: type[Exception], text: str
) -> None:
    found = await provider(Recorder(ArmResponse(200, body))).operation_status(STATUS)
    assert (found.state, type(found.error), str(found.error)) == (state, kind, text)


@pytest.mark.parametrize(("status", "body"), [(200, []), (200, b"<html>"), (500, {}), (302, None)])
async def test_an_unreadable_status_of_an_operation_is_an_error(status: int, body: object) -> None:
    with pytest.raises(CloudUnavailable):
        await provider(Recorder(ArmResponse(status, body))).operation_status(STATUS)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Azure-AsyncOperation": "a", "Location": "l"}, StartedOperation("a")),
        ({"Location": "l"}, StartedOperation("l")),
        ({}, StartedOperation("")),
        ({"Azure-AsyncOperation": "a", "Retry-After": "7"}, StartedOperation("a", 7)),
        ({"Azure-AsyncOperation": "a", "Retry-After": "700"}, StartedOperation("a", 120)),
    ],
)
async def test_a_started_operation_has_its_status_url(headers: dict[str, str], expected: StartedOperation) -> None:
    assert await provider(Recorder(ArmResponse(202, None, headers))).delete("ws1") == expected


async def test_a_pool_is_created_and_deleted_by_these_requests() -> None:
    server = Recorder(ArmResponse(200, {"value": []}))
    azure = provider(server)
    await azure.create(SPEC)
    server.response = ArmResponse(202)
    await azure.delete("ws1")
    put, delete = server.requests[-2:]
    assert (put.method, put.path) == ("PUT", f"{POOLS}/agentPools/ws1".removeprefix("http://arm"))
    assert put.headers["if-none-match"] == "*"
    assert (delete.method, delete.path) == ("DELETE", put.path)
    assert {request.query["api-version"] for request in server.requests} == {"2026-08-01"}


@pytest.mark.parametrize(
    ("systems", "subnet"),
    [
        ([], None),
        ([{"mode": "User", "vnetSubnetID": "/subnets/users"}], None),
        ([{"mode": "System"}, {"mode": "System", "vnetSubnetID": "/subnets/nodes"}], "/subnets/nodes"),
    ],
)
async def test_a_pool_is_in_the_subnet_of_the_first_system_pool_that_has_one(
    systems: list[dict[str, str]], subnet: str | None
) -> None:
    listed = [{"name": f"p{number}", "properties": properties} for number, properties in enumerate(systems)]
    server = Recorder(ArmResponse(200, {"value": listed}))
    await provider(server).create(SPEC)
    assert server.requests[-1].json()["properties"].get("vnetSubnetID") == subnet


class Lists:
    """Lists of pools with the times at which they start."""

    def __init__(self, pools: dict[str, str] | None = None) -> None:
        self.pools = pools or {}
        self.times: list[float] = []
        self.failure: Exception | None = None
        self.read_one: Instance | None = None

    async def read(self, request: ListRequest) -> Mapping[str, Instance]:
        request.on_start()
        self.times.append(monotonic())
        if self.failure is not None:
            raise self.failure
        if self.read_one is not None:
            return {self.read_one.name: self.read_one}
        return {name: instance(name, state) for name, state in self.pools.items()}


def instance(name: str, state: Any) -> Instance:
    return Instance(name=name, state=state, instance_type="x")


@pytest.fixture
def lists() -> Lists:
    return Lists()


def lister(lists: Lists, *, tokens: float = 60) -> tuple[PoolLister, RateLimits]:
    limits = RateLimits(RateLimit(200, 10))
    limits.pools._tokens = tokens  # pyright: ignore[reportPrivateUsage] -- as after so many requests
    limits.pools._filled_at = monotonic()  # pyright: ignore[reportPrivateUsage]
    limits.pools.set_rate(1e-9 if tokens < 60 else 1)  # nothing refills while a test counts
    return PoolLister(lists.read, limits.pools), limits


@pytest.mark.parametrize(("tokens", "pace"), [(60, 0), (48, 0), (47.9, 0.25), (20.1, 0.25)])
async def test_lists_for_reads_are_paced_as_tokens_run_out(lists: Lists, tokens: float, pace: float) -> None:
    reader, _ = lister(lists, tokens=tokens)
    await reader.all()
    await reader.all()
    assert lists.times == pytest.approx([0, pace], abs=0.001)
    await reader.close()


@pytest.mark.parametrize(("tokens", "waiting", "pace"), [(20, 0, 2.0), (20.1, 0, 0.25), (60, 1, 20.0)])
async def test_the_last_20_tokens_are_left_to_other_requests(
    lists: Lists, tokens: float, waiting: int, pace: float
) -> None:
    """Half of the refill for lists if only the reserve is left, a tenth while others wait."""
    reader, limits = lister(lists, tokens=tokens)
    await reader.all()
    limits.pools.set_rate(1)
    limits.pools._queue.extend(asyncio.Event() for _ in range(waiting))  # pyright: ignore[reportPrivateUsage]
    assert reader._list_interval_seconds() == pytest.approx(pace)  # pyright: ignore[reportPrivateUsage]
    limits.pools._queue.clear()  # pyright: ignore[reportPrivateUsage]
    await reader.close()


@pytest.mark.parametrize(
    ("tokens", "since_change", "expected"),
    [
        (60, 0, 0.5),
        (60, 5, 0.5),
        (60, 30, 3),
        (60, 99, 9.9),
        (60, 1000, 10),
        (40, 0, 0.5),
        (39.9, 0, 1),
    ],
)
async def test_the_interval_of_the_watch_grows_with_the_time_since_a_change(
    lists: Lists, tokens: float, since_change: float, expected: float
) -> None:
    reader, limits = lister(lists, tokens=tokens)
    reader._changed_at = monotonic()  # pyright: ignore[reportPrivateUsage]
    await asyncio.sleep(since_change)
    limits.pools.set_rate(1)
    assert reader._watch_interval_seconds() == pytest.approx(expected, abs=0.001)  # pyright: ignore[reportPrivateUsage]


async def test_a_pool_in_deletion_keeps_its_owner(lists: Lists) -> None:
    """A claim takes a pool without an owner for that of another claim, and would not wait for its deletion."""
    lists.pools = {"gpu1": "ready"}
    reader, _ = lister(lists)
    owner = InstanceOwner(installation="i", claim_kind="Machine", claim_name="gpu1", claim_uid="u")
    listed = replace(instance("gpu1", "ready"), owner=owner)
    lists.read_one = listed
    async with TaskScope("test") as scope:
        await watched(reader, scope)
        assert await reader.get("gpu1") == listed
        reader.track_deletion("gpu1")
        assert await reader.get("gpu1") == replace(listed, state="deleting")


async def test_reads_that_wait_for_a_list_fail_when_the_connection_is_closed(lists: Lists) -> None:
    """The reconcile that waits is not cancelled itself: without an error of the cloud it would look like a mistake."""
    reader, limits = lister(lists, tokens=20)
    await reader.all()
    limits.pools.set_rate(1)

    async def close() -> None:
        await asyncio.sleep(0.1)
        await reader.close()

    error, _ = await asyncio.gather(reader.all(), close(), return_exceptions=True)
    assert isinstance(error, CloudUnavailable)
    assert "connection to Azure is closed" in str(error)


async def test_a_read_that_is_cancelled_itself_is_cancelled(lists: Lists) -> None:
    reader, limits = lister(lists, tokens=20)
    await reader.all()
    limits.pools.set_rate(1)
    async with TaskScope("test") as scope:
        waiting = scope.spawn(reader.all(), name="read")
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await reader.close()


async def watched(reader: PoolLister, scope: TaskScope, on_change: Callable[[str], None] = lambda _: None) -> None:
    scope.spawn(reader.watch(on_change), name="watch")
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("state", "tracked"),
    [("creating", True), ("updating", True), ("deleting", True), ("ready", False), ("failed", False)],
)
async def test_a_pool_is_tracked_while_an_operation_runs(state: str, *, tracked: bool) -> None:
    lists = Lists({"ws1": state})
    reader, _ = lister(lists)
    async with TaskScope("test") as scope:
        await watched(reader, scope)
        for _ in range(2):
            found = await reader.get("ws1")
            assert found is not None
            assert found.state == state
        assert len(lists.times) == (1 if tracked else 2)
    await reader.close()


@pytest.mark.parametrize(("seconds", "lists_read"), [(4.9, 0), (5.1, 1)])
async def test_a_reported_end_answers_reads_for_5_seconds(seconds: float, lists_read: int) -> None:
    lists = Lists({"ws1": "ready"})
    reader, _ = lister(lists)
    reported = asyncio.Event()
    async with TaskScope("test") as scope:
        await watched(reader, scope, lambda _: reported.set())
        await asyncio.sleep(1)
        reader.track(instance("ws1", "creating"))
        await reported.wait()
        before = len(lists.times)
        await asyncio.sleep(seconds)
        found = await reader.get("ws1")
        assert found is not None
        assert found.state == "ready"
        assert len(lists.times) - before == lists_read
    await reader.close()


async def test_a_pool_that_is_not_read_for_15_minutes_is_not_tracked_any_more() -> None:
    lists = Lists({"ws1": "creating"})
    reader, _ = lister(lists)
    async with TaskScope("test") as scope:
        await watched(reader, scope)
        await reader.get("ws1")
        await asyncio.sleep(890)
        assert lists.times[-1] > 870
        await asyncio.sleep(200)
        assert 900 < lists.times[-1] < 911
        assert reader._tracked == {}  # pyright: ignore[reportPrivateUsage]
    await reader.close()


async def test_a_failing_watch_backs_off_from_5_seconds_to_a_minute() -> None:
    lists = Lists({"ws1": "creating"})
    reader, _ = lister(lists)
    async with TaskScope("test") as scope:
        await watched(reader, scope)
        lists.failure = CloudUnavailable("x")
        reader.track(instance("ws1", "creating"))
        await asyncio.sleep(300)
        gaps = [after - before for before, after in zip(lists.times, lists.times[1:], strict=False)]
        assert gaps[:6] == pytest.approx([5, 10, 20, 40, 60, 60], abs=0.6)
        lists.failure = CloudUnavailable("x", retry_after=100)
        count = len(lists.times)
        await asyncio.sleep(240)
        assert lists.times[count + 1] - lists.times[count] == pytest.approx(100, abs=0.6), "as long as Azure demands"
    await reader.close()


async def test_a_deleted_pool_keeps_what_is_known_of_it() -> None:
    lists = Lists({"ws1": "deleting"})
    reader, _ = lister(lists)
    async with TaskScope("test") as scope:
        await watched(reader, scope)
        reader.track(replace(instance("ws1", "creating"), image="i"))
        reader.track_deletion("ws1")
        reader.track_deletion("ws2")
        assert await reader.get("ws1") == replace(instance("ws1", "deleting"), image="i")
        assert await reader.get("ws2") == replace(instance("ws2", "deleting"), instance_type="")
    await reader.close()
