"""The Azure provider: instances are agent pools of one managed cluster, operations are ARM's."""

import re
from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Any, cast, final

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.mgmt.containerservice.models import AgentPool

from kaito.cloud.azure import pools
from kaito.cloud.azure.arm import Arm, is_success
from kaito.cloud.azure.errors import PARENT_CODES, operation_error, retry_after
from kaito.cloud.azure.fence import Fence
from kaito.cloud.azure.offerings import Offerings
from kaito.cloud.azure.settings import AzureSettings
from kaito.cloud.errors import (
    CloudError,
    CloudUnavailable,
    InstanceTypeUnavailable,
    InsufficientCapacity,
    OperationCanceled,
)
from kaito.cloud.metrics import CloudMetrics
from kaito.cloud.provider import Instance, InstancePlan, InstanceType, Progress, Started
from kaito.runtime.logging import get_logger

log = get_logger(__name__)

_OPERATION = re.compile(r"/providers/microsoft\.containerservice/locations/[^/]+/operation(s|results)/", re.IGNORECASE)

OPERATION_HEADER = "Azure-AsyncOperation"
LONGEST_PAUSE = timedelta(minutes=2).total_seconds()
"""A `Retry-After` beyond this is not believed."""


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
        self._scope = (settings.resource_group, settings.cluster)
        self._offerings = Offerings(self._arm, metrics)
        self._subnet: str | None = None

    def name_problem(self, name: str) -> str | None:
        """Why AKS would refuse the name."""
        return pools.name_problem(name)

    def instance_name(self, provider_id: str) -> str | None:
        """The pool that a machine belongs to."""
        return pools.pool_of(provider_id)

    async def get(self, name: str) -> Instance | None:
        """The pool, or None."""
        pool = await self._arm.call("get", lambda: self._find(name))
        return pools.to_instance(pool) if pool is not None else None

    async def list(self) -> list[Instance]:
        """Every pool of the cluster."""

        async def read() -> list[Instance]:
            return [pools.to_instance(pool) async for pool in self._arm.containers.agent_pools.list(*self._scope)]

        return await self._arm.call("list", read)

    async def create(self, plan: InstancePlan) -> Started:
        """PUT with `If-None-Match: *`, so that an existing pool is never reconfigured."""
        subnet = await self._node_subnet()

        async def put() -> Started:
            poller = await self._arm.containers.agent_pools.begin_create_or_update(
                *self._scope,
                plan.name,
                pools.to_model(plan, subnet=subnet),
                etag="*",
                match_condition=MatchConditions.IfMissing,
                polling=False,
                cls=_accepted,
            )
            return cast("Started", await poller.result())

        try:
            started = await self._arm.call("create", put)
        except InstanceTypeUnavailable as error:
            if plan.spot and error.code.lower() == "skunotavailable":  # for spot it always means: none left
                raise InsufficientCapacity(error.message, code=error.code) from error
            raise
        self._offerings.spend(plan)
        return started

    async def delete(self, name: str) -> Started | None:
        """DELETE; None when the pool is not there.

        AKS shall not drain the pool a second time: who deletes an instance has done that, with the budgets respected as
        long as the claim's grace period allowed.
        """

        async def remove() -> Started | None:
            try:
                poller = await self._arm.containers.agent_pools.begin_delete(
                    *self._scope, name, ignore_pod_disruption_budget=True, polling=False, cls=_accepted
                )
            except ResourceNotFoundError:  # the pool, its cluster or the whole group: in any case it is gone
                return None
            return cast("Started | None", await poller.result())

        return await self._arm.call("delete", remove)

    async def progress(self, operation: str) -> Progress:
        """Read the operation's status address once."""
        if not _OPERATION.search(operation) or not self._arm.is_ours(operation):
            return Progress("lost")  # whoever may edit claims does not choose what is read with our identity
        return await self._arm.call("progress", lambda: self._read_operation(operation))

    async def check(self, plan: InstancePlan) -> None:
        """Size offered, not restricted, quota left."""
        await self._offerings.check(plan)

    async def instance_type(self, name: str) -> InstanceType | None:
        """From the location's listing."""
        return await self._offerings.find(name)

    async def close(self) -> None:
        """Close connections."""
        await self._arm.close()

    async def _node_subnet(self) -> str:
        """Where the cluster's own machines are, asked once: a pool without a subnet fails in a bring-your-own network.

        Empty when AKS made the network, and when the pools cannot be listed now: AKS refuses a pool in the wrong place.
        """
        if self._subnet is None:

            async def read() -> str:
                listed = [pool async for pool in self._arm.containers.agent_pools.list(*self._scope)]
                return pools.system_subnet(listed)

            try:
                self._subnet = await self._arm.call("list", read)
            except CloudError as error:
                log.warning("creating without knowing the cluster's subnet", error=str(error))
                return ""
        return self._subnet

    async def _find(self, name: str) -> AgentPool | None:
        try:
            return await self._arm.containers.agent_pools.get(*self._scope, name)
        except ResourceNotFoundError as error:
            # A missing group or cluster is an error: "no such pool" would let the caller create into nowhere.
            code = error.error.code if error.error is not None else ""
            if code in PARENT_CODES or _is_about_the_cluster(str(error)):
                raise
            return None

    async def _read_operation(self, operation: str) -> Progress:
        response = await self._arm.fetch(operation)
        if response.status_code == HTTPStatus.NOT_FOUND:
            return Progress("lost")
        if not is_success(response):
            raise HttpResponseError(response=cast("Any", response))
        wait = _pause(response.headers)
        if response.status_code == HTTPStatus.ACCEPTED:
            return Progress("running", retry_after=wait)
        document: object = response.json() if response.content else {"status": "Succeeded"}
        if not isinstance(document, Mapping):
            raise CloudUnavailable("the operation's status is not a JSON object")
        return _progress(cast("Mapping[str, Any]", document), wait)


def _progress(document: Mapping[str, Any], wait: float | None) -> Progress:
    error = cast("Mapping[str, Any]", document.get("error") or {})
    match str(document.get("status", "")).lower():
        case "succeeded":
            return Progress("succeeded")
        case "failed":
            return Progress("failed", error=operation_error(error or {"message": "the operation failed"}))
        case "canceled":
            message = str(error.get("message") or "the operation was canceled")
            return Progress("canceled", error=OperationCanceled(message, code=str(error.get("code") or "Canceled")))
        case _:
            return Progress("running", retry_after=wait)


def _accepted(response: Any, _model: Any, _headers: Any) -> Started | None:
    """Given to the SDK as `cls`: what was started instead of the deserialised body; None for 204, nothing to do."""
    answer = response.http_response
    if answer.status_code == HTTPStatus.NO_CONTENT:
        return None
    headers = cast("Mapping[str, str]", answer.headers)
    return Started(headers.get(OPERATION_HEADER) or headers.get("Location") or "", _pause(headers))


def _pause(headers: Mapping[str, str]) -> float | None:
    wait = retry_after(headers)
    return min(wait, LONGEST_PAUSE) if wait is not None else None


def _is_about_the_cluster(text: str) -> bool:
    return "Microsoft.ContainerService/managedClusters/" in text and "agentPools" not in text
