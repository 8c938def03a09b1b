"""Implements `CloudProvider` for Azure: an instance is an agent pool of one node in an AKS cluster."""

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
from kaito.cloud.azure.arm import ArmClient, is_success
from kaito.cloud.azure.errors import PARENT_CODES, operation_error, parse_retry_after
from kaito.cloud.azure.instance_types import InstanceTypes
from kaito.cloud.azure.operations import is_operation_url, is_same_origin
from kaito.cloud.azure.pool_lister import ListRequest, PoolLister
from kaito.cloud.azure.rate_limits import MAX_PAUSE_SECONDS
from kaito.cloud.azure.settings import AzureSettings
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
from kaito.runtime.tracing import NO_TRACER, Tracer

log = get_logger(__name__)

OPERATION_HEADER = "Azure-AsyncOperation"
PAGE_ATTEMPTS = 3
_API_VERSION = re.compile(r"(?<=[?&])api-version=[^&]*")


@final
class AzureProvider:
    """Manages agent pools over ARM."""

    name = "azure"

    def __init__(
        self,
        settings: AzureSettings,
        metrics: CloudMetrics,
        *,
        transport: Any = None,
        fence: Fence | None = None,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        """Creates the clients; sends nothing.

        `transport` replaces the SDK's transport. `fence` is called immediately before a PUT, POST or DELETE is sent; an
        error that it raises (`kaito.runtime.errors.NotLeader`) prevents the write. `tracer` records the requests.
        """
        self._arm = ArmClient(settings, metrics, transport=transport, fence=fence, tracer=tracer)
        self._settings = settings
        self._scope = (settings.resource_group, settings.cluster)
        self._pools = PoolLister(self._list, self._arm.limits.pools)
        self._instance_types = InstanceTypes(self._arm, metrics)
        self._subnet: str | None = None

    def name_error(self, name: str) -> str | None:
        """Why AKS rejects the name; None if it is valid."""
        return pools.name_error(name)

    def instance_name(self, provider_id: str) -> str | None:
        """The pool of a node, from its provider ID."""
        return pools.pool_of(provider_id)

    async def get(self, name: str) -> Instance | None:
        """Reads a pool by the next list of all pools (`pool_lister`); None if it does not exist.

        If Azure answers the list with 5xx or an unreadable body, the pool is read alone.
        """
        try:
            return await self._pools.get(name)
        except CloudUnavailable as error:
            if isinstance(error.__cause__, TimeoutError | ServiceRequestError | ServiceResponseError):
                raise  # no response: a GET of one pool would fail as well
            log.warning("listing agent pools failed, reading one pool", pool=name, error=str(error))
        return await self._arm.call("get", lambda: self._get_alone(name))

    async def _get_alone(self, name: str) -> Instance | None:
        try:
            return pools.to_instance(await self._arm.fetch_json(self._url(f"/agentPools/{name}")))
        except HttpResponseError as error:
            # A missing group or cluster is an error: with None, the caller would create a pool.
            if error.status_code == HTTPStatus.NOT_FOUND and not is_about_cluster(error):
                return None
            raise

    def _url(self, path: str) -> str:
        """URL of a resource of the cluster."""
        settings = self._settings
        cluster = (
            f"/subscriptions/{settings.subscription_id}/resourceGroups/{settings.resource_group}"
            f"/providers/Microsoft.ContainerService/managedClusters/{settings.cluster}"
        )
        return f"{settings.endpoint}{quote(cluster + path)}?api-version={settings.api_version}"

    async def list(self) -> list[Instance]:
        """Lists all pools of the cluster."""
        return [*(await self._pools.all()).values()]

    async def watch(self, on_change: Callable[[str], None]) -> None:
        """Reports changes of pools with a running operation, until cancelled."""
        await self._pools.watch(on_change)

    async def create(self, spec: InstanceSpec) -> StartedOperation:
        """Creates a pool by a PUT with `If-None-Match: *`, so that an existing pool is never changed."""
        subnet = await self._node_subnet()

        async def put() -> StartedOperation:
            poller = await self._arm.containers.agent_pools.begin_create_or_update(
                *self._scope,
                spec.name,
                pools.to_model(spec, subnet=subnet),
                etag="*",
                match_condition=MatchConditions.IfMissing,
                polling=False,
                cls=_accepted,
            )
            return cast("StartedOperation", await poller.result())

        try:
            started = await self._arm.call("create", put, bucket=self._arm.limits.put(spec.name))
        except InstanceTypeUnavailable as error:
            if spec.spot and error.code.lower() == "skunotavailable":  # missing spot capacity
                raise InsufficientCapacity(error.message, code=error.code) from error
            raise
        self._instance_types.record_use(spec)
        self._pools.track(pools.creating(spec))
        return started

    async def delete(self, name: str) -> StartedOperation | None:
        """Deletes a pool; None if it does not exist.

        AKS ignores disruption budgets and does not drain the node: the provisioner has drained it, and respected the
        budgets within the claim's grace period.
        """

        async def remove() -> StartedOperation | None:
            try:
                poller = await self._arm.containers.agent_pools.begin_delete(
                    *self._scope, name, ignore_pod_disruption_budget=True, polling=False, cls=_accepted
                )
            except ResourceNotFoundError as error:
                # The pool was listed before. An answer that its cluster does not exist may be temporary.
                if is_about_cluster(error):
                    raise
                return None
            return cast("StartedOperation | None", await poller.result())

        started = await self._arm.call("delete", remove)
        if started is not None:
            self._pools.track_deletion(name)
        return started

    async def operation_status(self, status_url: str) -> OperationStatus:
        """Reads the status URL of an operation once."""
        settings = self._settings
        is_valid = is_operation_url(
            status_url,
            endpoint=settings.endpoint,
            subscription=settings.subscription_id,
            location=settings.location,
        )
        if not is_valid:
            return OperationStatus("lost")  # an edited annotation must not determine what our identity reads
        bucket = self._arm.limits.operations
        return await self._arm.call("progress", lambda: self._read_operation(status_url), bucket=bucket)

    async def check_availability(self, spec: InstanceSpec) -> None:
        """Checks the instance type, its restrictions, and the quota."""
        await self._instance_types.check_availability(spec)

    async def instance_type(self, name: str) -> InstanceType | None:
        """Reads an instance type from the list of the region."""
        return await self._instance_types.find(name)

    async def close(self) -> None:
        """Closes the connections."""
        await self._pools.close()
        await self._arm.close()

    async def _node_subnet(self) -> str:
        """The subnet of the system pools, read once: without it, AKS rejects a pool in a network of the user.

        Empty if AKS created the network, or if the pools cannot be listed now.
        """
        if self._subnet is None:
            try:
                listed = await self.list()
            except CloudError as error:
                log.warning("subnet of the cluster unknown, creating without it", error=str(error))
                return ""
            self._subnet = next((pool.subnet for pool in listed if pool.is_system and pool.subnet), "")
        return self._subnet

    async def _list(self, request: ListRequest) -> Mapping[str, Instance]:
        """Reads the list of pools page by page until it is complete; each page counts for the rate limit.

        Raises:
            CloudError: a page failed, links to another host or path, or links to a page that was read before.
        """
        settings = self._settings
        url = first = self._url("/agentPools")
        found: dict[str, Instance] = {}
        read: set[str] = set()
        while url not in read:
            document = await self._list_page(url, None if read else request.on_start)
            read.add(url)
            found |= _page(document)
            link = str(document.get("nextLink") or "")
            if not link or request.is_complete(found):
                return found
            # As in the SDK: the link may contain an older API version, whose responses have other fields.
            url = _API_VERSION.sub(f"api-version={settings.api_version}", link)
            if not is_same_origin(url, settings.endpoint) or urlsplit(url).path.lower() != urlsplit(first).path.lower():
                raise CloudUnavailable(f"the list of agent pools continues at another URL: {link.partition('?')[0]}")
        raise CloudUnavailable("the list of agent pools does not end: a page links to a previous one")

    async def _list_page(self, url: str, on_start: Callable[[], None] | None) -> Mapping[str, Any]:
        """Reads one page; a later page is retried after a 429, so that the previous pages are not read again."""

        async def read() -> Mapping[str, Any]:
            if on_start is not None:
                on_start()
            return await self._arm.fetch_json(url)

        for _ in range(0 if on_start is not None else PAGE_ATTEMPTS - 1):
            with contextlib.suppress(Throttled):
                return await self._arm.call("list", read, first=True)
        return await self._arm.call("list", read, first=True)

    async def _read_operation(self, status_url: str) -> OperationStatus:
        response = await self._arm.fetch(status_url)
        if response.status_code == HTTPStatus.NOT_FOUND:
            return OperationStatus("lost")
        if not is_success(response):
            raise HttpResponseError(response=cast("Any", response))
        wait = _retry_after(response.headers)
        if response.status_code == HTTPStatus.ACCEPTED:
            return OperationStatus("running", retry_after=wait)
        document: object = response.json() if response.content else {"status": "Succeeded"}
        if not isinstance(document, Mapping):
            raise CloudUnavailable("the operation's status is not a JSON object")
        return _operation_status(cast("Mapping[str, Any]", document), wait)


def _page(document: Mapping[str, Any]) -> dict[str, Instance]:
    """The pools of one page.

    Raises:
        CloudUnavailable: the page is not a list of pools; an empty result would mean that no pool exists.
    """
    value: object = document.get("value")
    if not isinstance(value, list):
        raise CloudUnavailable("unreadable response from Azure: a list of agent pools without a value")
    found: dict[str, Instance] = {}
    for entry in cast("list[object]", value):
        pool = pools.to_instance(cast("Mapping[str, Any]", entry)) if isinstance(entry, Mapping) else None
        if pool is None or not pool.name:
            raise CloudUnavailable("unreadable response from Azure: an agent pool without a name")
        found[pool.name] = pool
    return found


def _operation_status(document: Mapping[str, Any], wait: float | None) -> OperationStatus:
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
    """Argument `cls` of the SDK: returns the started operation instead of the body; None for 204, nothing to delete."""
    http_response = response.http_response
    if http_response.status_code == HTTPStatus.NO_CONTENT:
        return None
    headers = cast("Mapping[str, str]", http_response.headers)
    return StartedOperation(headers.get(OPERATION_HEADER) or headers.get("Location") or "", _retry_after(headers))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    wait = parse_retry_after(headers)
    return min(wait, MAX_PAUSE_SECONDS) if wait is not None else None


def is_about_cluster(error: HttpResponseError) -> bool:
    """Whether a 404 concerns the cluster, its resource group or the subscription."""
    code = error.error.code if error.error is not None else ""
    text = str(error)
    return code in PARENT_CODES or ("Microsoft.ContainerService/managedClusters/" in text and "agentPools" not in text)
