"""Status URLs that may be read."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from kaito.cloud.azure.operations import is_operation_url
from kaito.cloud.azure.provider import AzureProvider
from kaito.cloud.azure.settings import AzureSettings
from kaito.cloud.azure.simulator import Simulator, SimulatorSettings
from kaito.cloud.azure.simulator.server import serve
from kaito.cloud.errors import CloudUnavailable
from kaito.cloud.metrics import CloudMetrics
from kaito.cloud.provider import InstanceOwner, InstanceSpec

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
ARM = "https://management.azure.com"
LOCATIONS = f"{ARM}/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerService/locations"
VAULT = f"{ARM}/subscriptions/{SUBSCRIPTION}/resourceGroups/other/providers/Microsoft.KeyVault/vaults/v"
ID = "0b0e1ba4-9d6d-4a42-9ba1-5f4f1d1a1c11"
SIGNED = f"api-version=2025-03-01&t=638&c={'A-_' * 1200}&s=%2B%2F%3D&h=x"


@pytest.mark.parametrize(
    "url",
    [
        f"{LOCATIONS}/eastus/operations/{ID}?api-version=2016-03-30",
        f"{LOCATIONS}/eastus/operations/{ID}?{SIGNED}",
        f"{LOCATIONS}/eastus/operationresults/{ID}?api-version=2016-03-30",
        f"{LOCATIONS}/EastUS/operationStatus/{ID}?api-version=2024-09-01",
        f"{LOCATIONS}/eastus/operationStatuses/{ID}?api-version=2024-09-01",
        f"{LOCATIONS}/eastus/operations/{ID}".replace("Microsoft.ContainerService", "microsoft.containerservice"),
        f"{LOCATIONS}/eastus/operations/{ID}".replace("azure.com", "azure.com:443"),
        f"{LOCATIONS}/eastus/operations/{ID}".replace("management.azure.com", "MANAGEMENT.azure.com"),
    ],
)
def test_status_urls_of_the_subscription_are_valid(url: str) -> None:
    assert is_operation_url(url, endpoint=ARM, subscription=SUBSCRIPTION, location="East US")
    assert is_operation_url(url, endpoint=ARM, subscription=SUBSCRIPTION)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "operations",
        f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerService/locations/eastus/operations/{ID}",
        # the pattern is in the query, the fragment or behind another resource
        f"{VAULT}?api-version=2023-07-01&x=/providers/Microsoft.ContainerService/locations/a/operations/b",
        f"{VAULT}#/providers/Microsoft.ContainerService/locations/eastus/operations/{ID}",
        f"{LOCATIONS}/eastus/operations/{ID}/../../../../../resourceGroups/other",
        f"{LOCATIONS}/eastus/operations/{ID}/listKeys",
        f"{LOCATIONS}/eastus/operations/..%2f..%2f{ID}",
        f"{LOCATIONS}/eastus/operations/..",
        f"{LOCATIONS}/../operations/{ID}",
        f"{LOCATIONS}/eastus/operations/",
        f"{LOCATIONS}/eastus/usages/{ID}",
        f"{ARM}/x{LOCATIONS.removeprefix(ARM)}/eastus/operations/{ID}",
        # another subscription, provider or location
        f"{LOCATIONS.replace(SUBSCRIPTION, '1')}/eastus/operations/{ID}",
        f"{LOCATIONS.replace('ContainerService', 'KeyVault')}/eastus/operations/{ID}",
        f"{LOCATIONS}/westus/operations/{ID}",
        # another host, port, scheme or user
        f"{LOCATIONS.replace('management', 'evil')}/eastus/operations/{ID}",
        f"{LOCATIONS.replace('azure.com', 'azure.com.evil.example')}/eastus/operations/{ID}",
        f"{LOCATIONS.replace('https://', 'https://me:secret@')}/eastus/operations/{ID}",
        f"{LOCATIONS.replace('https://', 'https://management.azure.com@evil.example/')}/eastus/operations/{ID}",
        f"{LOCATIONS.replace('https', 'http')}/eastus/operations/{ID}",
        f"{LOCATIONS.replace('azure.com', 'azure.com:8443')}/eastus/operations/{ID}",
        f"{LOCATIONS.replace('azure.com', 'azure.com:port')}/eastus/operations/{ID}",
        LOCATIONS.replace("https://", "https:\\\\") + f"/eastus/operations/{ID}",
        # characters that a request line must not have
        f"{LOCATIONS}/eastus/operations/{ID}?a=b HTTP/1.1",
        f"{LOCATIONS}/eastus/operations/{ID}?a=\r\nX-Header: y",
        f"{LOCATIONS}/eastus/operations/{ID}?a=\u00e9",
        f"{LOCATIONS}/eastus/operations/{ID}\n",
        f"{LOCATIONS}/eastus/operations/{ID}?{'c' * 20_000}",
    ],
)
def test_other_urls_are_invalid(url: str) -> None:
    assert not is_operation_url(url, endpoint=ARM, subscription=SUBSCRIPTION, location="eastus")


def provider_at(endpoint: str) -> AzureProvider:
    return AzureProvider(
        AzureSettings(
            subscription_id=SUBSCRIPTION,
            resource_group="kaito",
            cluster="kaito",
            endpoint=endpoint,
            credential_mode="fake",
        ),
        CloudMetrics(),
    )


async def test_signed_url_is_sent_unchanged() -> None:
    """The simulator rejects a query that differs from the signed one."""
    async with Simulator(SimulatorSettings(speed=3000)) as simulator, serve(simulator) as url:
        azure = provider_at(url)
        plan = InstanceSpec(
            name="ws1",
            instance_type="Standard_NC6s_v3",
            owner=InstanceOwner("uid", "Machine", "ws1", "here"),
            disk_gib=100,
        )
        started = await azure.create(plan)
        assert len(started.status_url) > 3000
        operation = simulator.cluster.operations[started.status_url.partition("?")[0].rpartition("/")[2]]
        operation.query = f"api-version=2025-03-01&c={'A' * 3800}&s=a%2Bb%2Fc%3D%3d+~!*'(),&h=%7E"
        address = f"{started.status_url.partition('?')[0]}?{operation.query}"
        assert (await azure.operation_status(address)).state in {"running", "succeeded"}
        await azure.close()


class Elsewhere:
    """An ARM server whose responses link to another host, which records its requests."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self.body: Any = None
        self.here = self.there = ""

    async def serve_there(self, request: web.Request) -> web.Response:
        self.received.append(request.path)
        return web.json_response({"value": [], "status": "Succeeded"})

    async def serve_here(self, request: web.Request) -> web.Response:
        if "/operations/" in request.path:
            return web.Response(status=302, headers={"Location": f"{self.there}/elsewhere"})
        return web.json_response(self.body)


@pytest.fixture
async def elsewhere() -> AsyncIterator[Elsewhere]:
    both = Elsewhere()
    runners: list[web.AppRunner] = []
    for handler in (both.serve_here, both.serve_there):
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        runners.append(runner)
    both.here, both.there = (f"http://127.0.0.1:{runner.addresses[0][1]}" for runner in runners)
    try:
        yield both
    finally:
        for runner in runners:
            await runner.cleanup()


async def test_redirect_is_not_followed(elsewhere: Elsewhere) -> None:
    azure = provider_at(elsewhere.here)
    address = f"{elsewhere.here}{LOCATIONS.removeprefix(ARM)}/eastus/operations/{ID}"
    with pytest.raises(CloudUnavailable):
        await azure.operation_status(address)
    assert elsewhere.received == []
    await azure.close()


@pytest.mark.parametrize("link", ["{there}/next", "{here}/other?api-version=1", "//evil", "{here}/agentPools", "7"])
async def test_next_link_to_another_url_is_rejected(elsewhere: Elsewhere, link: str) -> None:
    azure = provider_at(elsewhere.here)
    elsewhere.body = {"value": [], "nextLink": link.format(here=elsewhere.here, there=elsewhere.there)}
    with pytest.raises(CloudUnavailable, match="continues at another URL"):
        await azure.list()
    assert elsewhere.received == []
    await azure.close()


async def test_next_link_of_compute_to_another_host_is_rejected(elsewhere: Elsewhere) -> None:
    azure = provider_at(elsewhere.here)
    elsewhere.body = {"location": "eastus", "value": [], "nextLink": f"{elsewhere.there}/next"}
    with pytest.raises(CloudUnavailable, match="rejected: it is not at"):
        await azure.instance_type("Standard_NC6s_v3")
    assert elsewhere.received == []
    await azure.close()


@pytest.mark.parametrize("answer", [[], "text", 7, None])
async def test_list_that_is_not_an_object_is_an_error(elsewhere: Elsewhere, answer: Any) -> None:
    """An empty list would mean that no pool exists."""
    azure = provider_at(elsewhere.here)
    elsewhere.body = answer
    with pytest.raises(CloudUnavailable):
        await azure.list()
    await azure.close()


async def test_list_without_items_is_an_error(elsewhere: Elsewhere) -> None:
    azure = provider_at(elsewhere.here)
    answers: list[Any] = [{}, {"value": None}, {"value": {}}, {"value": [7]}, {"value": [{"properties": {}}]}]
    for answer in answers:
        elsewhere.body = answer
        with pytest.raises(CloudUnavailable):
            await azure.list()
    await azure.close()


async def test_list_with_a_loop_of_links_is_an_error(elsewhere: Elsewhere) -> None:
    azure = provider_at(elsewhere.here)
    path = (
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/kaito/providers/Microsoft.ContainerService/managedClusters"
        "/kaito/agentPools"
    )
    elsewhere.body = {"value": [], "nextLink": f"{elsewhere.here}{path}?api-version=1&%24skipToken=x"}
    with pytest.raises(CloudUnavailable, match="does not end"):
        await azure.list()
    await azure.close()
