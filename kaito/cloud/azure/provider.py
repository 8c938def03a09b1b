"""The Azure provider: instances are agent pools of one managed cluster, operations are ARM's."""

import contextlib
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, cast, final
from urllib.parse import quote, urlsplit

from azure.core import MatchConditions
from azure.core.exceptions import (
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)

from kaito.cloud.azure import pools
from kaito.cloud.azure.arm import Arm, is_success
from kaito.cloud.azure.errors import PARENT_CODES, operation_error, retry_after
from kaito.cloud.azure.offerings import Offerings
from kaito.cloud.azure.operations import is_operation, is_same_origin
from kaito.cloud.azure.pool_list import PoolList, Reading
from kaito.cloud.azure.settings import AzureSettings
from kaito.cloud.azure.throttle import LONGEST_PAUSE
from kaito.cloud.azure.transport import Fence
from kaito.cloud.errors import (
    CloudError,
    CloudUnavailable,
    InstanceTypeUnavailable,
    InsufficientCapacity,
    OperationCanceled,
    Throttled,
)
from kaito.cloud.metrics import CloudMetrics
from kaito.cloud.provider import Instance, InstanceSpec, InstanceType, OperationStatus, StartedOperation
from kaito.runtime.logging import get_logger

log = get_logger(__name__)

OPERATION_HEADER = "Azure-AsyncOperation"
PAGE_ATTEMPTS = 3
_API_VERSION = re.compile(r"(?<=[?&])api-version=[^&]*")


@final
class AzureProvider:
    """Implements `kaito.cloud.provider.Provider` over ARM."""

    name = "azure"

    def __init__(
        self, settings: AzureSettings, metrics: CloudMetrics, *, transport: Any = None, fence: Fence | None = None
    ) -> None:
        """Prepare; nothing is sent.

        `transport` replaces the SDK's sockets. `fence` is called immediately before a PUT, POST or DELETE is sent; it
        raises when this process may not write any more (`kaito.runtime.errors.NotLeader`), and nothing is sent.
        """
        self._arm = Arm(settings, metrics, transport=transport, fence=fence)
        self._settings = settings
        self._scope = (settings.resource_group, settings.cluster)
        self._pools = PoolList(self._list, self._arm.budgets.pools)
        self._offerings = Offerings(self._arm, metrics)
        self._subnet: str | None = None

    def name_error(self, name: str) -> str | None:
        """Why AKS would refuse the name."""
        return pools.name_error(name)

    def instance_name(self, provider_id: str) -> str | None:
        """The pool that a machine belongs to."""
        return pools.pool_of(provider_id)

    async def get(self, name: str) -> Instance | None:
        """The pool, or None, by the next list of all pools (`pool_list`).

        A list that Azure answers badly (5xx, unreadable) stops no claim: the pool is then asked for alone.
        """
        try:
            return await self._pools.get(name)
        except CloudUnavailable as error:
            if isinstance(error.__cause__, TimeoutError | ServiceRequestError | ServiceResponseError):
                raise  # Azure does not answer: a GET of one pool would fail as well
            log.warning("listing the agent pools failed, reading one of them", pool=name, error=str(error))
        return await self._arm.call("get", lambda: self._get_alone(name))

    async def _get_alone(self, name: str) -> Instance | None:
        try:
            return pools.to_instance(await self._arm.fetch_json(self._url(f"/agentPools/{name}")))
        except HttpResponseError as error:
            # A missing group or cluster is an error: "no such pool" would let the caller create into nowhere.
            if error.status_code == HTTPStatus.NOT_FOUND and not is_about_the_cluster(error):
                return None
            raise

    def _url(self, path: str) -> str:
        """An address below the cluster."""
        settings = self._settings
        cluster = (
            f"/subscriptions/{settings.subscription_id}/resourceGroups/{settings.resource_group}"
            f"/providers/Microsoft.ContainerService/managedClusters/{settings.cluster}"
        )
        return f"{settings.endpoint}{quote(cluster + path)}?api-version={settings.api_version}"

    async def list(self) -> list[Instance]:
        """Every pool of the cluster."""
        return [*(await self._pools.all()).values()]

    async def watch(self, on_change: Callable[[str], None]) -> None:
        """Report changes of pools under way, with the pace of `pool_list`, until cancelled."""
        await self._pools.watch(on_change)

    async def create(self, plan: InstanceSpec) -> StartedOperation:
        """PUT with `If-None-Match: *`, so that an existing pool is never reconfigured."""
        subnet = await self._node_subnet()

        async def put() -> StartedOperation:
            poller = await self._arm.containers.agent_pools.begin_create_or_update(
                *self._scope,
                plan.name,
                pools.to_model(plan, subnet=subnet),
                etag="*",
                match_condition=MatchConditions.IfMissing,
                polling=False,
                cls=_accepted,
            )
            return cast("StartedOperation", await poller.result())

        try:
            started = await self._arm.call("create", put, bucket=self._arm.budgets.put(plan.name))
        except InstanceTypeUnavailable as error:
            if plan.spot and error.code.lower() == "skunotavailable":  # for spot it always means: none left
                raise InsufficientCapacity(error.message, code=error.code) from error
            raise
        self._offerings.spend(plan)
        self._pools.note(pools.planned(plan))
        return started

    async def delete(self, name: str) -> StartedOperation | None:
        """DELETE; None when the pool is not there.

        AKS shall not drain the pool a second time: who deletes an instance has done that, with the budgets respected as
        long as the claim's grace period allowed.
        """

        async def remove() -> StartedOperation | None:
            try:
                poller = await self._arm.containers.agent_pools.begin_delete(
                    *self._scope, name, ignore_pod_disruption_budget=True, polling=False, cls=_accepted
                )
            except ResourceNotFoundError:  # the pool, its cluster or the whole group: in any case it is gone
                return None
            return cast("StartedOperation | None", await poller.result())

        started = await self._arm.call("delete", remove)
        if started is not None:
            self._pools.note_deleting(name)
        return started

    async def operation_status(self, operation: str) -> OperationStatus:
        """Read the operation's status address once."""
        settings = self._settings
        ours = is_operation(
            operation,
            endpoint=settings.endpoint,
            subscription=settings.subscription_id,
            location=settings.location,
        )
        if not ours:
            return OperationStatus("lost")  # an edited claim must not choose what is read with our identity
        bucket = self._arm.budgets.operations
        return await self._arm.call("progress", lambda: self._read_operation(operation), bucket=bucket)

    async def check_availability(self, plan: InstanceSpec) -> None:
        """Size offered, not restricted, quota left."""
        await self._offerings.check_availability(plan)

    async def instance_type(self, name: str) -> InstanceType | None:
        """From the location's listing."""
        return await self._offerings.find(name)

    async def close(self) -> None:
        """Close connections."""
        await self._pools.close()
        await self._arm.close()

    async def _node_subnet(self) -> str:
        """Where the cluster's own machines are, asked once: a pool without a subnet fails in a bring-your-own network.

        Empty when AKS made the network, and when the pools cannot be listed now: AKS refuses a pool in the wrong place.
        """
        if self._subnet is None:
            try:
                listed = await self.list()
            except CloudError as error:
                log.warning("creating without knowing the cluster's subnet", error=str(error))
                return ""
            self._subnet = next((pool.subnet for pool in listed if pool.is_system and pool.subnet), "")
        return self._subnet

    async def _list(self, reading: Reading) -> Mapping[str, Instance]:
        """The list of pools, as plain JSON, page by page until it is enough; a page costs a request of the budget.

        Raises:
            CloudError: a page failed, or the list leads elsewhere or does not end.
        """
        settings = self._settings
        url = first = self._url("/agentPools")
        found: dict[str, Instance] = {}
        read: set[str] = set()
        while url not in read:
            document = await self._list_page(url, None if read else reading.begins)
            read.add(url)
            found |= _page(document)
            link = str(document.get("nextLink") or "")
            if not link or reading.is_enough(found):
                return found
            # As the SDK does: the link may name an older version, whose answers have another shape.
            url = _API_VERSION.sub(f"api-version={settings.api_version}", link)
            if not is_same_origin(url, settings.endpoint) or urlsplit(url).path.lower() != urlsplit(first).path.lower():
                raise CloudUnavailable(f"the list of agent pools goes on elsewhere, at {link.partition('?')[0]}")
        raise CloudUnavailable("the list of agent pools does not end: a page links to one that was read before")

    async def _list_page(self, url: str, begins: Callable[[], None] | None) -> Mapping[str, Any]:
        """One page. A later one is requested again after a 429, so that the pages before it are not read again."""

        async def read() -> Mapping[str, Any]:
            if begins is not None:
                begins()
            return await self._arm.fetch_json(url)

        for _ in range(0 if begins is not None else PAGE_ATTEMPTS - 1):
            with contextlib.suppress(Throttled):
                return await self._arm.call("list", read, first=True)
        return await self._arm.call("list", read, first=True)

    async def _read_operation(self, operation: str) -> OperationStatus:
        response = await self._arm.fetch(operation)
        if response.status_code == HTTPStatus.NOT_FOUND:
            return OperationStatus("lost")
        if not is_success(response):
            raise HttpResponseError(response=cast("Any", response))
        wait = _pause(response.headers)
        if response.status_code == HTTPStatus.ACCEPTED:
            return OperationStatus("running", retry_after=wait)
        document: object = response.json() if response.content else {"status": "Succeeded"}
        if not isinstance(document, Mapping):
            raise CloudUnavailable("the operation's status is not a JSON object")
        return _progress(cast("Mapping[str, Any]", document), wait)


def _page(document: Mapping[str, Any]) -> dict[str, Instance]:
    """The pools of one page.

    Raises:
        CloudUnavailable: it has another form. An empty list instead would mean that every pool is gone.
    """
    value: object = document.get("value")
    if not isinstance(value, list):
        raise CloudUnavailable("unreadable answer from Azure: a list of agent pools without a value")
    found: dict[str, Instance] = {}
    for entry in cast("list[object]", value):
        pool = pools.to_instance(cast("Mapping[str, Any]", entry)) if isinstance(entry, Mapping) else None
        if pool is None or not pool.name:
            raise CloudUnavailable("unreadable answer from Azure: an agent pool without a name")
        found[pool.name] = pool
    return found


def _progress(document: Mapping[str, Any], wait: float | None) -> OperationStatus:
    error = cast("Mapping[str, Any]", document.get("error") or {})
    match str(document.get("status", "")).lower():
        case "succeeded":
            return OperationStatus("succeeded")
        case "failed":
            return OperationStatus("failed", error=operation_error(error or {"message": "the operation failed"}))
        case "canceled":
            message = str(error.get("message") or "the operation was canceled")
            return OperationStatus(
                "canceled", error=OperationCanceled(message, code=str(error.get("code") or "Canceled"))
            )
        case _:
            return OperationStatus("running", retry_after=wait)


def _accepted(response: Any, _model: Any, _headers: Any) -> StartedOperation | None:
    """Given to the SDK as `cls`: what was started instead of the deserialized body; None for 204, nothing to do."""
    answer = response.http_response
    if answer.status_code == HTTPStatus.NO_CONTENT:
        return None
    headers = cast("Mapping[str, str]", answer.headers)
    return StartedOperation(headers.get(OPERATION_HEADER) or headers.get("Location") or "", _pause(headers))


def _pause(headers: Mapping[str, str]) -> float | None:
    wait = retry_after(headers)
    return min(wait, LONGEST_PAUSE) if wait is not None else None


def is_about_the_cluster(error: HttpResponseError) -> bool:
    """Whether a 404 is about what the pool would be in."""
    code = error.error.code if error.error is not None else ""
    text = str(error)
    return code in PARENT_CODES or ("Microsoft.ContainerService/managedClusters/" in text and "agentPools" not in text)
