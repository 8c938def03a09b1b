"""Authenticates and authorizes readers of the metrics port, as controller-runtime's filter and kube-rbac-proxy do.

The reader sends a bearer token. A TokenReview authenticates it; a SubjectAccessReview checks that the user may `get`
the path as a non-resource URL. Results are cached, so most scrapes cost no request. Give Prometheus a ClusterRole with
`nonResourceURLs: ["/metrics"], verbs: ["get"]`.
"""

import asyncio
import hashlib
from typing import Final, TypeVar, final

from kaito.runtime.client import Client
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.expiring import ExpiringCache
from kaito.runtime.http_server import HttpRequest, HttpResponse
from kaito.runtime.kinds.authentication import TokenReview, TokenReviewSpec, UserInfo
from kaito.runtime.kinds.authorization import NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import Resource
from kaito.runtime.workqueue.backoff import Jitter

TOKEN_SECONDS: Final = 60.0
ALLOWED_SECONDS: Final = 300.0
DENIED_SECONDS: Final = 30.0
"""Lifetimes of cached results (controller-runtime's `filters.WithAuthenticationAndAuthorization`)."""

REVIEW_SECONDS: Final = 10.0
"""Timeout of one review, retries included."""

ATTEMPTS: Final = 5
FIRST_DELAY_SECONDS: Final = 0.5
DELAY_FACTOR: Final = 1.5
DELAY_JITTER: Final = 0.2

CACHED_RESULTS: Final = 4096
"""Maximum number of cached results of each review."""

_log = get_logger(__name__)

R = TypeVar("R", bound=Resource)


@final
class MetricsAuthorizer:
    """Lets a request through, or responds 401, 403 or 500.

    Args:
        client: sends the reviews; not fenced.
        jitter: spreads the delays between attempts.
    """

    def __init__(self, client: Client, jitter: Jitter) -> None:
        self._client = client
        self._jitter = jitter
        self._users = ExpiringCache[UserInfo](CACHED_RESULTS)
        self._decisions = ExpiringCache[bool](CACHED_RESULTS)

    async def guard(self, request: HttpRequest) -> HttpResponse | None:
        """The response to a request that is not allowed; None if it is."""
        status = await self.authorize(request.headers.get("authorization", ""), request.path, request.method)
        return None if status == 200 else HttpResponse.of_text(f"{_TEXTS[status]}\n", status)

    async def authorize(self, authorization: str, path: str, method: str) -> int:
        """200 if the request is allowed, else the status of the response."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return 401
        try:
            user = await self._authenticate(token.strip())
            if user is None:
                return 401
            return 200 if await self._is_allowed(user, path, method.lower()) else 403
        except (KaitoRuntimeError, TimeoutError) as error:
            _log.error("review of a metrics request failed", error=str(error) or "timed out")
            return 500

    async def _authenticate(self, token: str) -> UserInfo | None:
        key = hashlib.sha256(token.encode()).hexdigest()  # keeps tokens themselves out of memory dumps
        known = self._users.get(key)
        if known is not None:
            return known
        review = await self._create(TokenReview(spec=TokenReviewSpec(token=token)))
        if not review.status.authenticated:
            return None
        self._users.put(key, review.status.user, TOKEN_SECONDS)
        return review.status.user

    async def _is_allowed(self, user: UserInfo, path: str, verb: str) -> bool:
        # All of the review: an authorizer may decide by `extra`, such as the scopes of a token.
        extra = tuple((name, tuple(values)) for name, values in sorted(user.extra.items()))
        key = (user.username, user.uid, tuple(sorted(user.groups)), extra, path, verb)
        known = self._decisions.get(key)
        if known is not None:
            return known
        spec = SubjectAccessReviewSpec(
            user=user.username,
            uid=user.uid,
            groups=user.groups,
            extra=user.extra,
            non_resource_attributes=NonResourceAttributes(path=path, verb=verb),
        )
        review = await self._create(SubjectAccessReview(spec=spec))
        self._decisions.put(key, review.status.allowed, ALLOWED_SECONDS if review.status.allowed else DENIED_SECONDS)
        return review.status.allowed

    async def _create(self, review: R) -> R:
        delay = FIRST_DELAY_SECONDS
        async with asyncio.timeout(REVIEW_SECONDS):
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    return await self._client.create(review)
                except KaitoRuntimeError:
                    if attempt == ATTEMPTS:
                        raise
                await asyncio.sleep(delay * (1 + DELAY_JITTER * self._jitter()))
                delay *= DELAY_FACTOR
        raise AssertionError  # pragma: no cover -- the last attempt returns or raises


_TEXTS = {401: "Unauthorized", 403: "Forbidden", 500: "Authentication failed"}
