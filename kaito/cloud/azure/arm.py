"""The SDK clients, and the one way to call them: limited, timed, counted, errors translated.

`AzureProvider` and its parts go through `Arm.call`. The SDK repeats connection trouble only; every answered error goes
back to the work queue, where it holds no worker.
"""

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar, cast, final

from azure.core.exceptions import AzureError, DeserializationError, HttpResponseError
from azure.core.rest import AsyncHttpResponse, HttpRequest
from azure.mgmt.compute.aio import ComputeManagementClient
from azure.mgmt.containerservice.aio import ContainerServiceClient

from kaito.cloud.azure.credential import PlainAuthentication, credential
from kaito.cloud.azure.errors import translate
from kaito.cloud.azure.settings import PUBLIC_ARM, AzureSettings
from kaito.cloud.azure.throttle import LONGEST_PAUSE, Bucket, Budget, Budgets
from kaito.cloud.azure.transport import Fence, guarded
from kaito.cloud.errors import CloudError, CloudUnavailable, Throttled
from kaito.cloud.metrics import CloudMetrics
from kaito.runtime.clock import monotonic

T = TypeVar("T")

CONNECT_SECONDS = 10.0
SPEED_HEADER = "x-simulator-speed"
"""Header with which a simulator sends the speed of its clock; the budgets refill as fast. Azure does not send it."""

COMPUTE_METHODS = frozenset({"list_sizes", "list_usage"})
"""What is asked of Microsoft.Compute, which has limits of its own."""

APPLICATION_ID = "kaito-gpu-provisioner"
"""Telemetry application id; ARM cuts it at 24 characters."""

_LIMIT_HEADERS = {
    "x-ms-ratelimit-remaining-subscription-global-reads": "reads",
    "x-ms-ratelimit-remaining-subscription-global-writes": "global-writes",
    "x-ms-ratelimit-remaining-subscription-global-deletes": "global-deletes",
    "x-ms-ratelimit-remaining-subscription-reads": "reads",
    "x-ms-ratelimit-remaining-subscription-writes": "writes",
    "x-ms-ratelimit-remaining-subscription-deletes": "deletes",
}


@final
class Arm:
    """Both management clients, and the budgets of their requests."""

    def __init__(
        self, settings: AzureSettings, metrics: CloudMetrics, *, transport: Any = None, fence: Fence | None = None
    ) -> None:
        """Prepare the clients; nothing is sent.

        Args:
            settings: where the cluster is.
            metrics: counts requests.
            transport: replaces the SDK's sockets (the simulator's does).
            fence: called immediately before a write is sent; what it raises keeps the write in the process.
        """
        logging.getLogger("azure").setLevel(logging.WARNING)  # the SDK logs every request at INFO
        self.settings = settings
        self._metrics = metrics
        self.budgets = Budgets(Budget(settings.request_burst, settings.requests_per_second))
        self._credential = credential(
            settings.credential_mode, client_id=settings.client_id, tenant_id=settings.tenant_id
        )
        options: dict[str, Any] = {
            "base_url": settings.endpoint,
            "credential_scopes": [f"{_audience(settings.endpoint)}/.default"],
            "retry_total": settings.attempts - 1,
            "retry_status": 0,
            "retry_backoff_factor": 0.2,
            "connection_timeout": CONNECT_SECONDS,
            "read_timeout": settings.request_timeout,
            "user_agent": APPLICATION_ID,
            "raw_response_hook": self._on_response,
            "permit_redirects": False,
            "transport": guarded(settings.endpoint, transport=transport, fence=fence),
        }
        if settings.credential_mode == "fake":
            options["authentication_policy"] = PlainAuthentication()
        subscription = settings.subscription_id
        self.containers = ContainerServiceClient(
            self._credential, subscription, api_version=settings.api_version, **options
        )
        self.compute = ComputeManagementClient(self._credential, subscription, **options)

    async def call(
        self, method: str, work: Callable[[], Awaitable[T]], *, bucket: Bucket | None = None, first: bool = False
    ) -> T:
        """Do one thing when its budget has room.

        Args:
            method: what it is, for metrics.
            work: sends the request.
            bucket: the budget it draws on; by default the one of its method.
            first: go before the requests that wait for the same budget.

        Raises:
            CloudError: it was refused, not answered in time, or not sent during a pause that a 429 imposed.
        """
        bucket = bucket or (self.budgets.compute if method in COMPUTE_METHODS else self.budgets.pools)
        waited = monotonic()
        await bucket.take(first=first)
        await self.budgets.overall.take(first=first)
        started = monotonic()
        if started > waited:
            self._metrics.throttled.labels("us").inc()
        code = "ok"
        try:
            async with asyncio.timeout(self.settings.request_timeout):
                return await work()
        except TimeoutError as error:
            code = "timeout"
            message = f"no answer from Azure within {self.settings.request_timeout:g} seconds"
            raise self._counted(method, CloudUnavailable(message), bucket) from error
        except (DeserializationError, ValueError) as error:
            code = "unreadable"
            raise self._counted(method, CloudUnavailable(f"unreadable answer from Azure: {error}"), bucket) from error
        except AzureError as error:
            code = _status(error)
            raise self._counted(method, translate(error), bucket) from error
        except BaseException as error:
            code = type(error).__name__
            raise
        finally:
            self._metrics.requests.labels(method, code).inc()
            self._metrics.duration.labels(method, "azure").observe(monotonic() - started)

    async def fetch(self, url: str) -> AsyncHttpResponse:
        """GET an address of this resource manager: any status is returned, a redirect is not followed.

        Raises:
            ForeignAddress: the address is elsewhere; our token is not sent there.
        """
        return await self.containers.send_request(HttpRequest("GET", url))

    async def fetch_json(self, url: str) -> Mapping[str, Any]:
        """GET a JSON object.

        Raises:
            HttpResponseError: the status is not 2xx.
            ValueError: the answer is not JSON.
            CloudUnavailable: it is not an object.
        """
        response = await self.fetch(url)
        if not is_success(response):
            raise HttpResponseError(response=cast("Any", response))
        document: object = json.loads(response.content)
        if not isinstance(document, Mapping):
            raise CloudUnavailable("the answer from Azure is not a JSON object")
        return cast("Mapping[str, Any]", document)

    async def close(self) -> None:
        """Close connections and the credential."""
        await self.containers.close()
        await self.compute.close()
        await self._credential.close()

    def _counted(self, method: str, error: CloudError, bucket: Bucket) -> CloudError:
        self._metrics.errors.labels(method, "azure", type(error).__name__).inc()
        if isinstance(error, Throttled):
            self._metrics.throttled.labels("azure").inc()
            if error.retry_after is not None:
                error.retry_after = min(error.retry_after, LONGEST_PAUSE)
            bucket.pause(error.retry_after)
        return error

    def _on_response(self, response: Any) -> None:
        headers = response.http_response.headers
        if self.settings.credential_mode == "fake" and (speed := _speed(headers.get(SPEED_HEADER))) is not None:
            self.budgets.run_at(speed)
        for header, kind in _LIMIT_HEADERS.items():
            value = headers.get(header)
            if value is not None and value.isdigit():
                self._metrics.remaining.labels(kind).set(int(value))


def _speed(text: str | None) -> float | None:
    try:
        speed = float(text or "")
    except ValueError:
        return None
    return speed if 0 < speed < math.inf else None


def _audience(endpoint: str) -> str:
    """What the token is for: the resource manager itself; public Azure's for addresses without encryption."""
    return endpoint.rstrip("/") if endpoint.startswith("https://") else PUBLIC_ARM


def _status(error: AzureError) -> str:
    if isinstance(error, HttpResponseError) and error.status_code is not None:
        return str(error.status_code)
    return type(error).__name__


def is_success(response: AsyncHttpResponse) -> bool:
    """Whether the status is 2xx."""
    return HTTPStatus.OK <= int(response.status_code) < HTTPStatus.MULTIPLE_CHOICES
