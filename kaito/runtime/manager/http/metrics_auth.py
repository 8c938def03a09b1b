"""Who may read the metrics port: asked of the API server, as kube-rbac-proxy and controller-runtime's filter do.

A caller shows a bearer token; a TokenReview says who that is, a SubjectAccessReview whether they may `get` the path as
a non-resource URL. Answers are kept for a while, so that a scrape costs no request. Give Prometheus a ClusterRole with
`nonResourceURLs: ["/metrics"], verbs: ["get"]`.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar, final

from aiohttp import web

from kaito.runtime.client import Client
from kaito.runtime.clock import monotonic
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import Model, Resource
from kaito.runtime.workqueue.backoff import Jitter

TOKEN_SECONDS: Final = 60.0
ALLOWED_SECONDS: Final = 300.0
DENIED_SECONDS: Final = 30.0
"""How long answers are kept (controller-runtime's `filters.WithAuthenticationAndAuthorization`)."""

ASK_SECONDS: Final = 10.0
"""Longest time for one question, retries included."""

ATTEMPTS: Final = 5
FIRST_WAIT_SECONDS: Final = 0.5
WAIT_FACTOR: Final = 1.5
WAIT_JITTER: Final = 0.2

REMEMBERED: Final = 4096
"""Answers kept at most."""

_log = get_logger(__name__)


class TokenReviewSpec(Model):
    """The question."""

    token: str = ""


class UserInfo(Model):
    """Who somebody is."""

    username: str = ""
    uid: str = ""
    groups: list[str] = []
    extra: dict[str, list[str]] = {}


class TokenReviewStatus(Model):
    """The answer."""

    authenticated: bool = False
    user: UserInfo = UserInfo()
    error: str = ""


class TokenReview(Resource, api="authentication.k8s.io/v1", kind="TokenReview", namespaced=False):
    """Asks whose token this is."""

    spec: TokenReviewSpec = TokenReviewSpec()
    status: TokenReviewStatus = TokenReviewStatus()


class NonResourceAttributes(Model):
    """A path that is no resource."""

    path: str
    verb: str


class SubjectAccessReviewSpec(Model):
    """The question."""

    user: str = ""
    uid: str = ""
    groups: list[str] = []
    extra: dict[str, list[str]] = {}
    non_resource_attributes: NonResourceAttributes | None = None


class SubjectAccessReviewStatus(Model):
    """The answer."""

    allowed: bool = False
    reason: str = ""


class SubjectAccessReview(Resource, api="authorization.k8s.io/v1", kind="SubjectAccessReview", namespaced=False):
    """Asks whether somebody may do something."""

    spec: SubjectAccessReviewSpec = SubjectAccessReviewSpec()
    status: SubjectAccessReviewStatus = SubjectAccessReviewStatus()


V = TypeVar("V")
R = TypeVar("R", bound=Resource)


@dataclass(slots=True)
class _Kept(Generic[V]):
    """Answers that hold until a time, the oldest forgotten first."""

    answers: OrderedDict[str, tuple[float, V]] = field(default_factory=OrderedDict[str, tuple[float, V]])

    def get(self, key: str) -> V | None:
        """The answer, while it holds."""
        until, answer = self.answers.get(key, (0.0, None))
        return answer if monotonic() < until else None

    def put(self, key: str, answer: V, seconds: float) -> None:
        """Keep an answer."""
        self.answers[key] = (monotonic() + seconds, answer)
        if len(self.answers) > REMEMBERED:
            self.answers.popitem(last=False)


@final
class Gatekeeper:
    """Answers 401, 403 or 500, or lets a request through.

    Args:
        client: asks the API server; not fenced.
        jitter: randomness of the waits between attempts.
    """

    def __init__(self, client: Client, jitter: Jitter) -> None:
        self._client = client
        self._jitter = jitter
        self._users = _Kept[UserInfo]()
        self._rights = _Kept[bool]()

    def middleware(self) -> Any:
        """The gatekeeper as a middleware of aiohttp."""

        @web.middleware
        async def guard(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            status = await self.judge(request.headers.get("authorization", ""), request.path, request.method)
            if status != 200:
                return web.Response(status=status, text=f"{_WORDS[status]}\n")
            return await handler(request)

        return guard

    async def judge(self, authorization: str, path: str, method: str) -> int:
        """200 to let through, else the status to answer."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return 401
        try:
            user = await self._who(token.strip())
            if user is None:
                return 401
            return 200 if await self._may(user, path, method.lower()) else 403
        except (KaitoRuntimeError, TimeoutError) as error:
            _log.error("cannot ask who reads the metrics", error=str(error) or "no answer in time")
            return 500

    async def _who(self, token: str) -> UserInfo | None:
        key = hashlib.sha256(token.encode()).hexdigest()  # tokens themselves are not kept
        known = self._users.get(key)
        if known is not None:
            return known
        review = await self._ask(TokenReview(spec=TokenReviewSpec(token=token)))
        if not review.status.authenticated:
            return None
        self._users.put(key, review.status.user, TOKEN_SECONDS)
        return review.status.user

    async def _may(self, user: UserInfo, path: str, verb: str) -> bool:
        key = "\0".join((user.username, user.uid, *sorted(user.groups), path, verb))
        known = self._rights.get(key)
        if known is not None:
            return known
        spec = SubjectAccessReviewSpec(
            user=user.username,
            uid=user.uid,
            groups=user.groups,
            extra=user.extra,
            non_resource_attributes=NonResourceAttributes(path=path, verb=verb),
        )
        review = await self._ask(SubjectAccessReview(spec=spec))
        self._rights.put(key, review.status.allowed, ALLOWED_SECONDS if review.status.allowed else DENIED_SECONDS)
        return review.status.allowed

    async def _ask(self, question: R) -> R:
        wait = FIRST_WAIT_SECONDS
        async with asyncio.timeout(ASK_SECONDS):
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    return await self._client.create(question)
                except KaitoRuntimeError:
                    if attempt == ATTEMPTS:
                        raise
                await asyncio.sleep(wait * (1 + WAIT_JITTER * self._jitter()))
                wait *= WAIT_FACTOR
        raise AssertionError  # pragma: no cover -- the last attempt returns or raises


_WORDS = {401: "Unauthorized", 403: "Forbidden", 500: "Authentication failed"}
