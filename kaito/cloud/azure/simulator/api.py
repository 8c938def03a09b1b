"""Handles ARM requests of the simulator: routes, conditions, paging, and bodies of responses.

Routes and bodies are those of the REST references of `Microsoft.ContainerService/managedClusters/agentPools` and
`Microsoft.Compute` (skus, usages). Paths are matched case-insensitively, as in ARM.
"""

import asyncio
import base64
import hashlib
import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kaito.cloud.azure.simulator.faults import Fault, FaultScript, OperationFault
from kaito.cloud.azure.simulator.http import ArmError, ArmRequest, ArmResponse
from kaito.cloud.azure.simulator.limits import RequestLimits
from kaito.cloud.azure.simulator.pools import Cluster, Operation, Pool
from kaito.runtime.meta import format_time

API_VERSION = re.compile(r"^\d{4}-\d{2}-\d{2}(-preview)?$")
REQUEST_LOG_LENGTH = 10_000
PAGE_SIZE = 100
SPEED_HEADER = "x-simulator-speed"
"""Speed of the clock on which the rate limits refill; the only header that Azure does not send."""

MAX_PODS = 250
"""Default for pods per node with overlay networking."""

UNIX_EPOCH_TICKS = 621355968000000000
"""1970-01-01 in .NET ticks of 100 ns; signed URLs contain their time in ticks."""

CERTIFICATE_CHARACTERS = 2800
SIGNATURE_CHARACTERS = 342
"""Lengths of the parts of a signed status URL, as recorded."""

_CLUSTER = (
    r"/subscriptions/(?P<subscription>[^/]+)/resourcegroups/(?P<group>[^/]+)"
    r"/providers/microsoft\.containerservice/managedclusters/(?P<cluster>[^/]+)"
)
_LOCATION = r"/subscriptions/(?P<subscription>[^/]+)/providers/microsoft\.containerservice/locations/[^/]+"

_COMPUTE = r"/subscriptions/(?P<subscription>[^/]+)/providers/microsoft\.compute"


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """An entry of the request log, for assertions."""

    method: str
    path: str
    pool: str
    status: int
    query: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Call:
    """Arguments of a handler: the request, the names in its path, and the fault that applies to it."""

    request: ArmRequest
    names: Mapping[str, str]
    fault: Fault | None

    @property
    def operation_fault(self) -> OperationFault | None:
        """The fault of the operation that this call starts."""
        return self.fault.operation if self.fault else None


class ArmApi:
    """Handles requests with the state of one cluster, after applying faults."""

    def __init__(self, cluster: Cluster, faults: FaultScript) -> None:
        self._cluster = cluster
        self._faults = faults
        self.requests: deque[RecordedRequest] = deque(maxlen=REQUEST_LOG_LENGTH)
        self.limits = RequestLimits(cluster.settings.speed)
        self._routes: list[tuple[str, re.Pattern[str], Callable[[Call], ArmResponse]]] = [
            (method, re.compile(f"^{pattern}/?$", re.IGNORECASE), handler)
            for method, pattern, handler in (
                ("GET", _CLUSTER, self._get_cluster),
                ("GET", rf"{_CLUSTER}/agentpools", self._list_pools),
                ("GET", rf"{_CLUSTER}/agentpools/(?P<pool>[^/]+)", self._get_pool),
                ("PUT", rf"{_CLUSTER}/agentpools/(?P<pool>[^/]+)", self._put_pool),
                ("DELETE", rf"{_CLUSTER}/agentpools/(?P<pool>[^/]+)", self._delete_pool),
                ("POST", rf"{_CLUSTER}/agentpools/(?P<pool>[^/]+)/abort", self._abort_pool),
                ("GET", rf"{_LOCATION}/operation(s|status)/(?P<operation>[^/]+)", self._get_operation),
                ("GET", rf"{_LOCATION}/operationresults/(?P<operation>[^/]+)", self._get_operation_result),
                ("GET", rf"{_COMPUTE}/skus", self._list_sizes),
                ("GET", rf"{_COMPUTE}/locations/(?P<location>[^/]+)/usages", self._list_usages),
            )
        ]

    async def handle(self, request: ArmRequest) -> ArmResponse:
        """Handles a request; a fault may delay the response or withhold it."""
        pool = _pool_of(request.path)
        fault = self._faults.take(request.method, request.path, pool)
        if fault is not None and fault.delay:
            await asyncio.sleep(fault.delay)
        if fault is not None and fault.hang:
            await asyncio.Event().wait()
        if (
            fault is not None
            and not fault.after
            and fault.operation is None
            and not fault.truncate
            and _has_response(fault)
        ):
            response = _fault_response(fault)
        else:
            response = self._dispatch(request, fault)
            if fault is not None and fault.after and _has_response(fault):
                response = _fault_response(fault)
            if fault is not None and fault.truncate:
                body = response.encode()
                response = ArmResponse(response.status, body[: len(body) // 2], response.headers)
        self.requests.append(RecordedRequest(request.method, request.path, pool, response.status, request.query))
        if response.drop:
            return response
        return ArmResponse(
            response.status, response.body, {**self._standard_headers(request.method), **response.headers}
        )

    def _standard_headers(self, method: str) -> dict[str, str]:
        """Request IDs and remaining requests of the subscription, as recorded in 2025."""
        request_id = self._cluster.new_id()
        headers = {"x-ms-request-id": request_id, "x-ms-correlation-request-id": request_id}
        if self._cluster.settings.speed != 1:
            headers[SPEED_HEADER] = f"{self._cluster.settings.speed:g}"
        match method:
            case "GET":
                return {**headers, "x-ms-ratelimit-remaining-subscription-global-reads": "16499"}
            case "DELETE":
                return {
                    **headers,
                    "x-ms-ratelimit-remaining-subscription-deletes": "799",
                    "x-ms-ratelimit-remaining-subscription-global-deletes": "11999",
                }
            case _:
                return {
                    **headers,
                    "x-ms-ratelimit-remaining-subscription-writes": "799",
                    "x-ms-ratelimit-remaining-subscription-global-writes": "11999",
                }

    def _dispatch(self, request: ArmRequest, fault: Fault | None) -> ArmResponse:
        try:
            _check_version(request)
            known_path = False
            for method, pattern, handler in self._routes:
                match = pattern.match(request.path)
                if match is None:
                    continue
                known_path = True
                if method == request.method:
                    self._check_scope(match.groupdict())
                    if self._cluster.settings.request_limits:
                        self.limits.check(request.method, request.path)
                    return handler(Call(request, match.groupdict(), fault))
            if known_path:
                raise ArmError(405, "MethodNotAllowed", f"The method {request.method} is not allowed here.")
            raise ArmError(404, "InvalidResourceType", f"The resource type could not be found: {request.path}")
        except ArmError as error:
            return error.response()

    def _check_scope(self, names: Mapping[str, str]) -> None:
        settings = self._cluster.settings
        if names["subscription"].lower() != settings.subscription_id.lower():
            message = f"The subscription '{names['subscription']}' could not be found."
            raise ArmError(404, "SubscriptionNotFound", message)
        if "group" in names and names["group"].lower() != settings.resource_group.lower():
            raise ArmError(404, "ResourceGroupNotFound", f"Resource group '{names['group']}' could not be found.")
        if "cluster" in names and names["cluster"].lower() != settings.cluster.lower():
            message = (
                f"The Resource 'Microsoft.ContainerService/managedClusters/{names['cluster']}' under resource group "
                f"'{names['group']}' was not found."
            )
            raise ArmError(404, "ResourceNotFound", message)

    def _get_cluster(self, _call: Call) -> ArmResponse:
        settings = self._cluster.settings
        return ArmResponse(
            body={
                "id": settings.cluster_id,
                "name": settings.cluster,
                "type": "Microsoft.ContainerService/ManagedClusters",
                "location": settings.location,
                "properties": {
                    "provisioningState": "Succeeded",
                    "powerState": {"code": "Running"},
                    "kubernetesVersion": settings.kubernetes_version,
                    "currentKubernetesVersion": settings.kubernetes_version,
                    "nodeResourceGroup": settings.node_resource_group,
                },
            }
        )

    def _list_pools(self, call: Call) -> ArmResponse:
        pools = [self._document(pool) for _, pool in sorted(self._cluster.pools.items())]
        return _page(call.request, pools, empty_last_page=self._cluster.settings.empty_last_page)

    def _get_pool(self, call: Call) -> ArmResponse:
        return ArmResponse(body=self._document(self._pool(call.names["pool"])))

    def _put_pool(self, call: Call) -> ArmResponse:
        self._check_conditions(call)
        pool, new = self._cluster.put(call.names["pool"], call.request.json(), call.operation_fault)
        headers = (
            self._operation_headers(call.request, pool, location=False)
            if self._cluster.settings.operation_header
            else {}
        )
        return ArmResponse(201 if new else 200, self._document(pool), headers)

    def _check_conditions(self, call: Call) -> None:
        pool = self._cluster.pools.get(call.names["pool"])
        headers = call.request.headers
        if headers.get("if-none-match") == "*" and pool is not None:
            raise ArmError(412, "PreconditionFailed", f"The agent pool '{pool.name}' already exists.")
        expected = headers.get("if-match", "*")
        if expected != "*" and (pool is None or expected.strip('"') != pool.etag):
            message = f"The eTag '{expected}' does not match the agent pool's."
            raise ArmError(412, "PreconditionFailed", message)

    def _delete_pool(self, call: Call) -> ArmResponse:
        pool = self._cluster.delete(call.names["pool"], call.operation_fault)
        if pool is None:
            if self._cluster.settings.delete_gone_status == 204:
                return ArmResponse(204)
            raise _pool_not_found(call.names["pool"])
        return ArmResponse(202, headers=self._operation_headers(call.request, pool, location=True))

    def _abort_pool(self, call: Call) -> ArmResponse:
        """202 and the pool, which becomes Canceled; 204 if no operation is running."""
        pool = self._pool(call.names["pool"])
        if not self._cluster.abort(pool):
            return ArmResponse(204)
        return ArmResponse(202, self._document(pool), self._operation_headers(call.request, pool, location=True))

    def _get_operation(self, call: Call) -> ArmResponse:
        operation = self._operation(call)
        running = operation.status == "InProgress" or operation.stuck
        body: dict[str, Any] = {
            "name": operation.id,
            "status": "InProgress" if running else operation.status,
            "startTime": format_time(operation.started),
        }
        if operation.ended is not None and not running:
            body["endTime"] = format_time(operation.ended)
        if operation.error and not running:
            body["error"] = operation.error
        return ArmResponse(body=body, headers=self._cluster.settings.retry_after if running else {})

    def _get_operation_result(self, call: Call) -> ArmResponse:
        operation = self._operation(call)
        if operation.status != "InProgress":
            return ArmResponse(204)
        here = f"{call.request.base_url}{call.request.path}?{call.request.raw_query}"
        return ArmResponse(202, headers={"Location": here, **self._cluster.settings.retry_after})

    def _list_sizes(self, call: Call) -> ArmResponse:
        wanted = re.search(r"location eq '([^']+)'", call.request.query.get("$filter", ""))
        here = wanted is None or wanted.group(1).lower() == self._cluster.settings.location.lower()
        return _page(call.request, self._cluster.catalog.skus(self._cluster.settings.location) if here else [])

    def _list_usages(self, _call: Call) -> ArmResponse:
        usages = [
            {
                "limit": limit,
                "unit": "Count",
                "currentValue": used,
                "name": {"value": family, "localizedValue": f"{family} vCPUs"},
            }
            for family, (used, limit) in self._cluster.usages().items()
        ]
        return ArmResponse(body={"value": usages})

    def _pool(self, name: str) -> Pool:
        pool = self._cluster.pools.get(name)
        if pool is None:
            raise _pool_not_found(name)
        return pool

    def _operation(self, call: Call) -> Operation:
        operation = self._cluster.operations.get(call.names["operation"])
        if operation is None or operation.lost:
            raise ArmError(404, "NotFound", f"The operation {call.names['operation']} could not be found.")
        if operation.query and call.request.raw_query != operation.query:
            raise ArmError(403, "AuthorizationFailed", "The signature of the operation's address is not valid.")
        return operation

    def _operation_headers(self, request: ArmRequest, pool: Pool, *, location: bool) -> dict[str, str]:
        operation, settings = pool.operation, self._cluster.settings
        if operation is None:
            return {}
        if settings.signed_operations and not operation.query:
            operation.query = _signed_query(operation)
        query = operation.query or "api-version=2016-03-30"
        base = (
            f"{request.base_url}/subscriptions/{settings.subscription_id}/providers/Microsoft.ContainerService"
            f"/locations/{settings.location}"
        )
        headers = {"Azure-AsyncOperation": f"{base}/operations/{operation.id}?{query}", **settings.retry_after}
        if location:
            headers["Location"] = f"{base}/operationresults/{operation.id}?{query}"
        return headers

    def _document(self, pool: Pool) -> dict[str, Any]:
        settings = self._cluster.settings
        properties: dict[str, Any] = {
            "count": 1,
            "osDiskType": "Managed",
            "kubeletDiskType": "OS",
            "maxPods": MAX_PODS,
            "enableAutoScaling": False,
            "scaleDownMode": "Delete",
            "type": "VirtualMachineScaleSets",
            "mode": "User",
            "osType": "Linux",
            "osSKU": "Ubuntu",
            "enableFIPS": False,
            "nodeLabels": {},
            "nodeTaints": [],
            "upgradeSettings": {"maxSurge": "10%", "maxUnavailable": "0"},
            "securityProfile": {"enableVTPM": False, "enableSecureBoot": False},
            "orchestratorVersion": settings.kubernetes_version,
            **pool.properties,
            "currentOrchestratorVersion": settings.kubernetes_version,
            "nodeImageVersion": node_image(pool),
            "provisioningState": pool.state,
            "powerState": {"code": "Running"},
            "eTag": pool.etag,
        }
        if pool.error:
            properties["status"] = {"provisioningError": pool.error}
        return {
            "id": f"{settings.cluster_id}/agentPools/{pool.name}",
            "name": pool.name,
            "type": "Microsoft.ContainerService/managedClusters/agentPools",
            "properties": properties,
        }


def node_image(pool: Pool) -> str:
    """The node image of the pool's operating system."""
    if pool.properties.get("osSKU") == "AzureLinux":
        return "AKSAzureLinux-V3gen2-202608.01.0"
    return "AKSUbuntu-2204gen2containerd-202608.01.0"


def _pool_of(path: str) -> str:
    found = re.search(r"/agentpools/([^/]+)", path, re.IGNORECASE)
    return found.group(1) if found else ""


def _pool_not_found(name: str) -> ArmError:
    message = f"Agent Pool not found: the agent pool '{name}' could not be found."
    return ArmError(404, "NotFound", message, flat=True, subcode="GetAgentPool_NotFound")


def _signed_query(operation: Operation) -> str:
    """A query with the parameters of a signed one: time, certificate, signature and hash, in base64url."""

    def characters(purpose: str, count: int) -> str:
        raw = hashlib.shake_256(f"{purpose} {operation.id}".encode()).digest(count * 3 // 4 + 1)
        return base64.urlsafe_b64encode(raw).decode()[:count]

    ticks = int(operation.started.timestamp() * 10**7) + UNIX_EPOCH_TICKS
    certificate = f"MIIH{characters('certificate', CERTIFICATE_CHARACTERS)}"
    signature, digest = characters("signature", SIGNATURE_CHARACTERS), characters("hash", 43)
    return f"api-version=2025-03-01&t={ticks}&c={certificate}&s={signature}&h={digest}"


def _check_version(request: ArmRequest) -> None:
    version = request.query.get("api-version", "")
    if not version:
        raise ArmError(400, "MissingApiVersionParameter", "The api-version query parameter is required.")
    if not API_VERSION.match(version):
        raise ArmError(400, "InvalidApiVersionParameter", f"The api-version '{version}' is invalid.")


def _has_response(fault: Fault) -> bool:
    return fault.status is not None or fault.drop


def _fault_response(fault: Fault) -> ArmResponse:
    return ArmResponse(fault.status or 500, fault.body, fault.headers, drop=fault.drop)


def _page(request: ArmRequest, items: list[dict[str, Any]], *, empty_last_page: bool = False) -> ArmResponse:
    """One page of a list. With `empty_last_page`, the last page links to an empty one, as recorded in 2025."""
    start = int(request.query.get("$skipToken") or request.query.get("$skiptoken") or "0")
    body: dict[str, Any] = {"value": items[start : start + PAGE_SIZE]}
    end = start + PAGE_SIZE
    if end < len(items) or (empty_last_page and body["value"]):
        version = request.query["api-version"]
        token = f"%24skipToken={end}&api-version={version}&skipToken={end}"
        body["nextLink"] = f"{request.base_url}{request.path}?{token}"
    return ArmResponse(body=body)
