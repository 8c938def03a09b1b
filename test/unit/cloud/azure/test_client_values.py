"""How the client of Azure configures the SDK, and details of errors, lists and metrics at their limits."""

import asyncio
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from kaito.cloud.azure.arm import ArmClient
from kaito.cloud.azure.error_details import ErrorDetail, error_details
from kaito.cloud.azure.errors import classify
from kaito.cloud.azure.pool_lister import ListRequest, PoolLister, is_cancelling
from kaito.cloud.azure.provider import AzureProvider
from kaito.cloud.azure.rate_limits import RateLimit, RateLimits
from kaito.cloud.azure.settings import AzureSettings
from kaito.cloud.azure.simulator.http import ArmRequest, ArmResponse
from kaito.cloud.azure.simulator.inprocess import InProcessTransport
from kaito.cloud.azure.transport import guarded_transport
from kaito.cloud.errors import CloudUnavailable, InvalidRequest, Throttled
from kaito.cloud.metrics import CloudMetrics
from kaito.cloud.provider import Instance
from kaito.runtime.tasks import TaskScope
from test.support.recorded_spans import Recorded

SETTINGS = AzureSettings(
    subscription_id="s", resource_group="g", cluster="c", endpoint="http://arm", credential_mode="fake"
)
CLUSTER = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/c"
METRICS_PAGE = Path(__file__).parents[4] / "docs" / "reference" / "metrics.md"


class Answers:
    """An ARM with one response for each last part of a path."""

    def __init__(self, **responses: ArmResponse) -> None:
        self.responses = responses

    async def handle(self, request: ArmRequest) -> ArmResponse:
        return self.responses[request.path.rpartition("/")[2]]


def provider(metrics: CloudMetrics | None = None, **responses: ArmResponse) -> AzureProvider:
    return AzureProvider(SETTINGS, metrics or CloudMetrics(), transport=InProcessTransport(Answers(**responses)))


def test_the_sdk_logs_no_request() -> None:
    logger = logging.getLogger("azure")
    logger.setLevel(logging.DEBUG)
    ArmClient(SETTINGS, CloudMetrics(), transport=InProcessTransport(Answers()))
    assert logger.level == logging.WARNING


async def test_a_connection_is_given_up_after_10_seconds() -> None:
    """The SDK reads this configuration of the transport, and ignores the options of its clients."""
    assert guarded_transport("http://arm").connection_config.timeout == 10.0


@pytest.mark.virtual_time
async def test_a_redirect_is_not_followed_on_the_same_host_either() -> None:
    server = Answers(old=ArmResponse(307, None, {"Location": "http://arm/new"}), new=ArmResponse(200, {}))
    arm = ArmClient(SETTINGS, CloudMetrics(), transport=InProcessTransport(server))
    assert (await arm.fetch("http://arm/old")).status_code == 307


@pytest.mark.parametrize(
    ("endpoint", "is_used"), [("https://management.azure.com", True), ("http://127.0.0.1:80", False)]
)
async def test_the_proxy_of_the_environment_is_used_for_other_hosts(endpoint: str, *, is_used: bool) -> None:
    transport = guarded_transport(endpoint)
    await transport.open()
    assert transport.session._session.trust_env is is_used
    await transport.close()


def nested(levels: int) -> dict[str, Any]:
    body: dict[str, Any] = {"code": "Innermost", "message": "m"}
    for level in range(levels):
        body = {"code": f"Level{level}", "innererror": body}
    return body


@pytest.mark.parametrize(("levels", "is_found"), [(7, True), (8, False)])
def test_errors_are_read_down_to_the_eighth_level(levels: int, *, is_found: bool) -> None:
    assert (ErrorDetail("Innermost", "m") in error_details(nested(levels))) is is_found


def text_at(levels: int) -> dict[str, Any]:
    """An error whose details are texts in lists in lists."""
    value: Any = 'Code="Deep" Message="m"'
    for _ in range(levels):
        value = [value]
    return {"details": value}


@pytest.mark.parametrize(("levels", "is_found"), [(5, True), (6, False)])
def test_texts_are_read_down_to_the_eighth_level(levels: int, *, is_found: bool) -> None:
    assert (ErrorDetail("Deep", "m") in error_details(text_at(levels))) is is_found


def test_a_brace_that_begins_no_document_is_passed_over() -> None:
    found = error_details(
        {"message": 'pool {ws1} failed: {"error": {"code": "SubnetIsFull", "message": "no address"}}'}
    )
    assert ErrorDetail("SubnetIsFull", "no address") in found


def test_a_text_that_begins_with_a_document_is_read() -> None:
    assert ErrorDetail("X", "no address") in error_details({"message": '{"code": "X", "message": "no address"} of ws1'})


def test_an_escaped_document_in_a_text_is_read_with_its_backslashes() -> None:
    document = json.dumps({"code": "X", "message": "a\\b"})
    escaped = document.replace("\\", "\\\\").replace('"', '\\"')
    assert ErrorDetail("X", "a\\b") in error_details({"message": f"failed: {escaped}"})


@pytest.mark.parametrize(("code", "expected"), [(None, ""), (True, ""), (False, ""), (42, "42"), (["a"], '["a"]')])
def test_codes_are_texts(code: object, expected: str) -> None:
    assert error_details({"code": code, "message": "m"})[0].code == expected


def test_an_error_without_its_own_code_has_the_code_around_it() -> None:
    body = {"code": "CreateFailed", "message": "x", "details": ["the scope was disallowed by policy"]}
    error = classify(400, body)
    assert isinstance(error, InvalidRequest)
    assert (str(error.message), error.code) == ("the scope was disallowed by policy", "CreateFailed")


@pytest.mark.virtual_time
async def test_a_cluster_without_a_region_has_none() -> None:
    azure = provider(c=ArmResponse(200, {"name": "c"}))
    assert await azure._instance_types.location() == ""  # pyright: ignore[reportPrivateUsage]


@pytest.mark.virtual_time
async def test_an_instance_type_without_places_has_unknown_zones() -> None:
    sku = {"resourceType": "virtualMachines", "name": "Standard_X", "locations": ["eastus"]}
    azure = provider(skus=ArmResponse(200, {"value": [sku]}), c=ArmResponse(200, {"name": "c", "location": "eastus"}))
    found = await azure.instance_type("Standard_X")
    assert found is not None
    assert found.zones is None


@pytest.mark.virtual_time
async def test_a_pool_that_is_read_alone_is_counted_as_get() -> None:
    metrics, registry = CloudMetrics(), CollectorRegistry()
    metrics.register(registry)
    azure = provider(
        metrics,
        agentPools=ArmResponse(500, {"error": {"code": "X", "message": "x"}}),
        ws1=ArmResponse(200, {"name": "ws1", "properties": {"provisioningState": "Succeeded"}}),
    )
    assert await azure.get("ws1") is not None
    assert registry.get_sample_value("gpu_provisioner_arm_requests_total", {"op": "get", "code": "ok"}) == 1
    assert registry.get_sample_value("gpu_provisioner_arm_requests_total", {"op": "list", "code": "500"}) == 1


@pytest.mark.virtual_time
@pytest.mark.parametrize(("refusals", "is_read"), [(0, True), (2, True), (3, False)])
async def test_the_second_page_is_read_three_times_at_most(refusals: int, *, is_read: bool) -> None:
    """The first page is not read again."""
    requests: list[str] = []

    class Pages:
        async def handle(self, request: ArmRequest) -> ArmResponse:
            requests.append(request.query.get("page", "1"))
            if requests[-1] == "1":
                return ArmResponse(200, {"value": [], "nextLink": f"http://arm{CLUSTER}/agentPools?page=2"})
            if requests.count("2") <= refusals:
                return ArmResponse(429, {"error": {"code": "TooManyRequests", "message": "x"}}, {"Retry-After": "0"})
            return ArmResponse(200, {"value": [{"name": "ws1", "properties": {"provisioningState": "Succeeded"}}]})

    azure = AzureProvider(SETTINGS, CloudMetrics(), transport=InProcessTransport(Pages()))
    if is_read:
        assert [pool.name for pool in await azure.list()] == ["ws1"]
    else:
        with pytest.raises(Throttled):
            await azure.list()
    assert requests == ["1", *["2"] * min(refusals + 1, 3)]


@pytest.mark.virtual_time
async def test_a_429_of_azure_and_a_wait_of_our_own_are_counted_apart() -> None:
    metrics, registry = CloudMetrics(), CollectorRegistry()
    metrics.register(registry)
    refused = ArmResponse(429, {"error": {"code": "TooManyRequests", "message": "x"}}, {"Retry-After": "1"})
    with pytest.raises(Throttled):
        await provider(metrics, agentPools=refused).list()
    assert registry.get_sample_value("gpu_provisioner_arm_throttled_total", {"by": "azure"}) == 1
    assert registry.get_sample_value("gpu_provisioner_arm_throttled_total", {"by": "us"}) is None


@pytest.mark.virtual_time
async def test_the_span_of_a_request_names_operation_and_endpoint() -> None:
    recorded = Recorded()
    answers = InProcessTransport(Answers(agentPools=ArmResponse(200, {"value": []})))
    azure = AzureProvider(SETTINGS, CloudMetrics(), transport=answers, tracer=recorded.tracer)
    with recorded.tracer.start_as_current_span("reconcile"):
        await azure.list()
    (span,) = recorded.take("ARM")
    assert span.name == "ARM list"
    assert dict(span.attributes or {}) == {"server.address": "arm", "cloud.provider": "azure"}


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    "link", ["http://user@arm{path}/agentPools?x=1", "http://arm{path}/other", "https://arm{path}"]
)
async def test_the_list_continues_at_its_own_url_only(link: str) -> None:
    azure = provider(agentPools=ArmResponse(200, {"value": [], "nextLink": link.format(path=CLUSTER)}))
    with pytest.raises(CloudUnavailable, match="the list of agent pools continues at another URL: http"):
        await azure.list()


@pytest.mark.virtual_time
async def test_a_pool_that_goes_from_one_operation_to_the_next_stays_tracked() -> None:
    state = "creating"

    async def read(request: ListRequest) -> Mapping[str, Instance]:
        request.on_start()
        return {"ws1": Instance(name="ws1", state=state, instance_type="x")}  # type: ignore[arg-type]  # one of its values

    reader, changes = PoolLister(read, RateLimits(RateLimit(200, 10)).pools), list[str]()
    async with TaskScope("test") as scope:
        scope.spawn(reader.watch(changes.append), name="watch")
        await asyncio.sleep(0)
        await reader.get("ws1")
        state = "deleting"
        await asyncio.sleep(60)
        assert changes == ["ws1"]
        state = "ready"
        await asyncio.sleep(60)
        assert changes == ["ws1", "ws1"]
    await reader.close()


async def test_a_task_is_cancelling_after_the_first_cancellation() -> None:
    seen: list[bool] = []

    async def run() -> None:
        seen.append(is_cancelling())
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append(is_cancelling())
            raise

    async with TaskScope("test") as scope:
        task = scope.spawn(run(), name="run")
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert seen == [False, True]


def test_the_metrics_are_those_of_the_reference() -> None:
    registry = CollectorRegistry()
    CloudMetrics().register(registry)
    page = METRICS_PAGE.read_text(encoding="utf-8")
    names = {"counter": "_total"}
    for family in registry.collect():
        name = f"{family.name}{names.get(family.type, '')}"
        (line,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert f"| {family.type} |" in line
        assert line.endswith(f"| {family.documentation} |")
