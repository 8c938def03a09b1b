"""Calls Azure Resource Manager: applies rate limits and timeouts, counts requests, and translates errors.

`AzureProvider` sends all requests by `ArmClient.call`. The SDK retries failed connections only. Errors that Azure
returns are retried by the work queue, where waiting does not occupy a worker.
"""

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar, cast, final
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError, DeserializationError, HttpResponseError
from azure.core.rest import AsyncHttpResponse, HttpRequest
from azure.mgmt.containerservice.aio import ContainerServiceClient

from kaito.cloud.azure.credential import FakeTokenPolicy, NewTokenPolicy, make_credential
from kaito.cloud.azure.errors import translate
from kaito.cloud.azure.rate_limits import MAX_PAUSE_SECONDS, RateLimit, RateLimits, pause
from kaito.cloud.azure.settings import PUBLIC_ARM, AzureSettings
from kaito.cloud.azure.transport import Fence, guarded_transport
from kaito.cloud.errors import CloudError, CloudUnavailable, Throttled
from kaito.cloud.metrics import CloudMetrics
from kaito.runtime.clock import monotonic
from kaito.runtime.token_bucket import TokenBucket
from kaito.runtime.tracing import NO_TRACER, Tracer

if TYPE_CHECKING:
    from azure.mgmt.compute.aio import ComputeManagementClient

T = TypeVar("T")

SPEED_HEADER = "x-simulator-speed"
"""Clock speed of the simulator; the rate limits refill as fast. Azure does not send this header."""

COMPUTE_METHODS = frozenset({"list_sizes", "list_usage"})
"""Requests to Microsoft.Compute, which has separate rate limits."""

APPLICATION_ID = "kaito-gpu-provisioner"
"""Application ID in the User-Agent; ARM accepts up to 24 characters."""

_LIMIT_HEADERS = {
    "x-ms-ratelimit-remaining-subscription-global-reads": "reads",
    "x-ms-ratelimit-remaining-subscription-global-writes": "global-writes",
    "x-ms-ratelimit-remaining-subscription-global-deletes": "global-deletes",
    "x-ms-ratelimit-remaining-subscription-reads": "reads",
    "x-ms-ratelimit-remaining-subscription-writes": "writes",
    "x-ms-ratelimit-remaining-subscription-deletes": "deletes",
}


@final
class ArmClient:
    """The SDK's clients of container service and compute, with the rate limits of their requests."""

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

        Args:
            settings: the cluster and its endpoint.
            metrics: counts requests.
            transport: replaces the SDK's transport, for the simulator in this process.
            fence: called immediately before a write is sent; an error that it raises prevents the write.
            tracer: records each request within a reconcile, the wait for its rate limit included.
        """
        logging.getLogger("azure").setLevel(logging.WARNING)  # the SDK logs every request at INFO
        self.settings = settings
        self._metrics = metrics
        self._tracer = tracer
        self.limits = RateLimits(RateLimit(settings.request_burst, settings.requests_per_second))
        self._credential = make_credential(
            settings.credential_mode, client_id=settings.client_id, tenant_id=settings.tenant_id
        )
        options: dict[str, Any] = {
            "base_url": settings.endpoint,
            "credential_scopes": [f"{_audience(settings.endpoint)}/.default"],
            "retry_total": settings.attempts - 1,
            "retry_status": 0,
            "retry_backoff_factor": 0.2,
            "user_agent": APPLICATION_ID,
            "raw_response_hook": self._on_response,
            "permit_redirects": False,
            "per_call_policies": [NewTokenPolicy()],
            "transport": guarded_transport(settings.endpoint, transport=transport, fence=fence),
        }
        if settings.credential_mode == "fake":
            options["authentication_policy"] = FakeTokenPolicy()
        subscription = settings.subscription_id
        self.containers = ContainerServiceClient(
            self._credential, subscription, api_version=settings.api_version, **options
        )
        self._options = options

    @cached_property
    def compute(self) -> "ComputeManagementClient":
        """The client of compute; it is loaded with the first launch, because a start does not need it."""
        from azure.mgmt.compute.aio import ComputeManagementClient

        return ComputeManagementClient(self._credential, self.settings.subscription_id, **self._options)

    async def call(
        self, method: str, send: Callable[[], Awaitable[T]], *, bucket: TokenBucket | None = None, first: bool = False
    ) -> T:
        """Sends a request once its rate limit allows it.

        Args:
            method: name in metrics; determines the default rate limit.
            send: sends the request.
            bucket: rate limit, if not the default.
            first: go before the requests that wait for the same rate limit.

        Raises:
            CloudError: Azure rejected the request or did not respond in time, or a 429 paused such requests.
        """
        bucket = bucket or (self.limits.compute if method in COMPUTE_METHODS else self.limits.pools)
        attributes = {"server.address": urlsplit(self.settings.endpoint).hostname or "", "cloud.provider": "azure"}
        with self._tracer.start_as_current_span(f"ARM {method}", attributes=attributes, kind="client"):
            return await self._call(method, send, bucket, first=first)

    async def _call(self, method: str, send: Callable[[], Awaitable[T]], bucket: TokenBucket, *, first: bool) -> T:
        waited = await bucket.take(first=first) + await self.limits.overall.take(first=first)
        started = monotonic()
        if waited:
            self._metrics.throttled.labels("us").inc()
        code = "ok"
        try:
            async with asyncio.timeout(self.settings.request_timeout_seconds):
                return await send()
        except TimeoutError as error:
            code = "timeout"
            message = f"no response from Azure within {self.settings.request_timeout_seconds:g} seconds"
            raise self._recorded(method, CloudUnavailable(message), bucket) from error
        except (DeserializationError, ValueError) as error:
            code = "unreadable"
            raise self._recorded(
                method, CloudUnavailable(f"unreadable response from Azure: {error}"), bucket
            ) from error
        except AzureError as error:
            code = _status(error)
            raise self._recorded(method, translate(error), bucket) from error
        except BaseException as error:
            code = type(error).__name__
            raise
        finally:
            self._metrics.requests.labels(method, code).inc()
            self._metrics.duration.labels(method, "azure").observe(monotonic() - started)

    async def fetch(self, url: str) -> AsyncHttpResponse:
        """GETs a URL of the resource manager; returns any status and follows no redirect.

        Raises:
            ForeignUrl: the URL has another host; the token is not sent to it.
        """
        return await self.containers.send_request(HttpRequest("GET", url))

    async def fetch_json(self, url: str) -> Mapping[str, Any]:
        """GETs a JSON object.

        Raises:
            HttpResponseError: the status is not 2xx.
            ValueError: the response is not JSON.
            CloudUnavailable: the response is not a JSON object.
        """
        response = await self.fetch(url)
        if not is_success(response):
            raise HttpResponseError(response=cast("Any", response))
        document: object = json.loads(response.content)
        if not isinstance(document, Mapping):
            raise CloudUnavailable("the response from Azure is not a JSON object")
        return cast("Mapping[str, Any]", document)

    async def close(self) -> None:
        """Closes the connections and the credential."""
        await self.containers.close()
        if "compute" in self.__dict__:
            await self.compute.close()
        await self._credential.close()

    def _recorded(self, method: str, error: CloudError, bucket: TokenBucket) -> CloudError:
        self._metrics.errors.labels(method, "azure", type(error).__name__).inc()
        if isinstance(error, Throttled):
            self._metrics.throttled.labels("azure").inc()
            if error.retry_after is not None:
                error.retry_after = min(error.retry_after, MAX_PAUSE_SECONDS)
            pause(bucket, error.retry_after)
        return error

    def _on_response(self, response: Any) -> None:
        headers = response.http_response.headers
        if self.settings.credential_mode == "fake" and (speed := _parse_speed(headers.get(SPEED_HEADER))) is not None:
            self.limits.set_clock_speed(speed)
        for header, kind in _LIMIT_HEADERS.items():
            value = headers.get(header)
            if value is not None and value.isdigit():
                self._metrics.remaining.labels(kind).set(int(value))


def _parse_speed(text: str | None) -> float | None:
    try:
        speed = float(text or "")
    except ValueError:
        return None
    return speed if 0 < speed < math.inf else None


def _audience(endpoint: str) -> str:
    """Audience of the token: the resource manager; that of public Azure for an endpoint without TLS."""
    return endpoint.rstrip("/") if endpoint.startswith("https://") else PUBLIC_ARM


def _status(error: AzureError) -> str:
    if isinstance(error, HttpResponseError) and error.status_code is not None:
        return str(error.status_code)
    return type(error).__name__


def is_success(response: AsyncHttpResponse) -> bool:
    """Whether the status is 2xx."""
    return HTTPStatus.OK <= int(response.status_code) < HTTPStatus.MULTIPLE_CHOICES
