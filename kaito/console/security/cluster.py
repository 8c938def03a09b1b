"""Access in a cluster: users send their own bearer token, which a proxy in front of the console adds to requests.

A TokenReview identifies the user. What the console shows from its informers is limited by SubjectAccessReviews of the
user; everything else is sent to the API server with the user's token, which therefore decides.
"""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, final

from aiohttp import web

from kaito.console.security.access import FIELD_MANAGER, Action, User
from kaito.console.security.refusal import Refusal
from kaito.runtime.client import Client, ClusterConfig, HttpTransport
from kaito.runtime.errors import KaitoRuntimeError
from kaito.runtime.expiring import ExpiringCache
from kaito.runtime.kinds.authentication import TokenReview, TokenReviewSpec, UserInfo
from kaito.runtime.kinds.authorization import ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec

USER_SECONDS: Final = 60.0
ALLOWED_SECONDS: Final = 30.0
DENIED_SECONDS: Final = 10.0
"""Time for which results of reviews are kept."""

KEPT_RESULTS: Final = 8192
MAX_TOKEN_CHARACTERS: Final = 16_384


@final
class BearerToken:
    """The token of one user, as credentials."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def header(self) -> str:
        """Returns the value of the `Authorization` header."""
        return f"Bearer {self._token}"

    async def renew(self, header: str) -> bool:
        """Returns False: only the user has another token."""
        del header
        return False


@final
@dataclass(frozen=True, slots=True)
class ClusterUser:
    """A user with a token."""

    name: str
    client: Client
    transport: HttpTransport
    writes: bool
    _info: UserInfo
    _reviews: "Reviews"

    async def may(self, action: Action) -> bool:
        """Returns whether the user has a right.

        Raises:
            Refusal: the API server cannot answer.
        """
        return await self._reviews.is_allowed(self._info, action)


@final
class Reviews:
    """Sends reviews with the rights of the console.

    Args:
        client: sends them.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._users = ExpiringCache[UserInfo](KEPT_RESULTS)
        self._decisions = ExpiringCache[bool](KEPT_RESULTS)

    async def identify(self, token: str) -> UserInfo:
        """Returns the user of a token.

        Raises:
            Refusal: the token is not valid, or the API server cannot answer.
        """
        key = hashlib.sha256(token.encode()).hexdigest()
        known = self._users.get(key)
        if known is not None:
            return known
        try:
            review = await self._client.create(TokenReview(spec=TokenReviewSpec(token=token)))
        except KaitoRuntimeError as error:
            raise _unavailable("TokenReview", error) from error
        if not review.status.authenticated:
            raise Refusal(401, "the API server does not accept your token: sign in again at the proxy of the console")
        self._users.put(key, review.status.user, USER_SECONDS)
        return review.status.user

    async def is_allowed(self, user: UserInfo, action: Action) -> bool:
        """Returns whether a user has a right.

        Raises:
            Refusal: the API server cannot answer.
        """
        extra = tuple((name, tuple(values)) for name, values in sorted(user.extra.items()))
        key = (user.username, user.uid, tuple(user.groups), extra, action)
        known = self._decisions.get(key)
        if known is not None:
            return known
        spec = SubjectAccessReviewSpec(
            user=user.username,
            uid=user.uid,
            groups=user.groups,
            extra=user.extra,
            resource_attributes=ResourceAttributes(
                namespace=action.namespace,
                verb=action.verb,
                group=action.group,
                resource=action.resource,
                subresource=action.subresource,
                name=action.name,
            ),
        )
        try:
            review = await self._client.create(SubjectAccessReview(spec=spec))
        except KaitoRuntimeError as error:
            raise _unavailable("SubjectAccessReview", error) from error
        allowed = review.status.allowed
        self._decisions.put(key, allowed, ALLOWED_SECONDS if allowed else DENIED_SECONDS)
        return allowed


@final
class ClusterAccess:
    """Identifies users by their bearer tokens.

    Args:
        config: the API server; its credentials are replaced by those of the user.
        client: sends reviews, with the rights of the console.
        writes: whether users may write at all.
    """

    def __init__(self, config: ClusterConfig, client: Client, *, writes: bool) -> None:
        # The certificate and the impersonation of the console must not be sent with the token of a user.
        tls = replace(config.tls, certificate_file="", key_file="")
        self._config = replace(config, tls=tls, impersonation=())
        self._reviews = Reviews(client)
        self._writes = writes

    @asynccontextmanager
    async def user(self, request: web.Request) -> AsyncGenerator[User]:
        """Yields the user of a request.

        Raises:
            Refusal: the token is missing or not valid, or the API server cannot answer.
        """
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN_CHARACTERS:
            message = "the request has no bearer token: open the console through its proxy, which adds your token"
            raise Refusal(401, message)
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise Refusal(401, "the bearer token contains characters that are not allowed: sign in again at the proxy")
        info = await self._reviews.identify(token)
        transport = HttpTransport(replace(self._config, credentials=BearerToken(token)))
        try:
            client = Client(transport, field_manager=FIELD_MANAGER)
            yield ClusterUser(info.username, client, transport, self._writes, info, self._reviews)
        finally:
            await transport.close()


def _unavailable(what: str, error: KaitoRuntimeError) -> Refusal:
    return Refusal(503, f"your rights cannot be checked now: the {what} failed; try again ({error})")
