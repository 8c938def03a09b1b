"""The SDK clients, and the one way to call them: limited, timed, counted, errors translated.

`AzureProvider` and its parts go through `Arm.call`. The SDK repeats connection trouble only; every answered error goes
back to the work queue, where it holds no worker.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeVar, final
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError, DeserializationError, HttpResponseError
from azure.core.rest import AsyncHttpResponse, HttpRequest
from azure.mgmt.compute.aio import ComputeManagementClient
from azure.mgmt.containerservice.aio import ContainerServiceClient

from kaito.cloud.azure.credential import PlainAuthentication, credential
from kaito.cloud.azure.errors import translate
from kaito.cloud.azure.fence import Fence, fenced
from kaito.cloud.azure.settings import PUBLIC_ARM, AzureSettings
from kaito.cloud.azure.throttle import TokenBucket
from kaito.cloud.errors import CloudError, CloudUnavailable, Throttled
from kaito.cloud.metrics import CloudMetrics
from kaito.runtime.clock import monotonic

T = TypeVar("T")

DEFAULT_PAUSE_SECONDS = 5.0
"""Pause of all requests after a 429 that names no time."""

CONNECT_SECONDS = 10.0
APPLICATION_ID = "kaito-gpu-provisioner"
"""Telemetry application id; ARM cuts it at 24 characters."""

_LIMIT_HEADERS = {
    "x-ms-ratelimit-remaining-subscription-reads": "reads",
    "x-ms-ratelimit-remaining-subscription-writes": "writes",
    "x-ms-ratelimit-remaining-subscription-deletes": "deletes",
}


@final
class Arm:
    """Both management clients with one request limit between them."""

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
        self._bucket = TokenBucket(settings.requests_per_second, settings.request_burst)
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
        }
        if settings.credential_mode == "fake":
            options["authentication_policy"] = PlainAuthentication()
        if fence is not None:
            options["transport"] = fenced(transport, fence)
        elif transport is not None:
            options["transport"] = transport
        subscription = settings.subscription_id
        self.containers = ContainerServiceClient(
            self._credential, subscription, api_version=settings.api_version, **options
        )
        self.compute = ComputeManagementClient(self._credential, subscription, **options)

    async def call(self, method: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do one thing.

        Raises:
            CloudError: it was refused, throttled, or not answered in time.
        """
        try:
            await self._bucket.take()
        except Throttled:
            self._metrics.throttled.labels("us").inc()
            raise
        started = monotonic()
        code = "ok"
        try:
            async with asyncio.timeout(self.settings.request_timeout):
                return await work()
        except TimeoutError as error:
            code = "timeout"
            message = f"no answer from Azure within {self.settings.request_timeout:g} seconds"
            raise self._counted(method, CloudUnavailable(message)) from error
        except (DeserializationError, ValueError) as error:
            code = "unreadable"
            raise self._counted(method, CloudUnavailable(f"unreadable answer from Azure: {error}")) from error
        except AzureError as error:
            code = _status(error)
            raise self._counted(method, translate(error)) from error
        finally:
            self._metrics.requests.labels(method, code).inc()
            self._metrics.duration.labels(method, "azure").observe(monotonic() - started)

    async def fetch(self, url: str) -> AsyncHttpResponse:
        """GET an address of this resource manager, as the SDK would: any status is returned.

        Raises:
            ValueError: the address is elsewhere; our token is not sent there.
        """
        if not self.is_ours(url):
            raise ValueError(f"{url} is not an address of {self.settings.endpoint}")
        return await self.containers.send_request(HttpRequest("GET", url))

    def is_ours(self, url: str) -> bool:
        """Whether an address belongs to the endpoint our token is meant for."""
        ours, theirs = urlsplit(self.settings.endpoint), urlsplit(url)
        return (ours.scheme, ours.netloc.lower()) == (theirs.scheme, theirs.netloc.lower())

    async def close(self) -> None:
        """Close connections and the credential."""
        await self.containers.close()
        await self.compute.close()
        await self._credential.close()

    def _counted(self, method: str, error: CloudError) -> CloudError:
        self._metrics.errors.labels(method, "azure", type(error).__name__).inc()
        if isinstance(error, Throttled):
            self._metrics.throttled.labels("azure").inc()
            self._bucket.pause(error.retry_after or DEFAULT_PAUSE_SECONDS)
        return error

    def _on_response(self, response: Any) -> None:
        headers = response.http_response.headers
        for header, kind in _LIMIT_HEADERS.items():
            value = headers.get(header)
            if value is not None and value.isdigit():
                self._metrics.remaining.labels(kind).set(int(value))


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
