"""Access by the printed link: its token is exchanged for a cookie, and the user acts with the console's own kubeconfig.

Browsers send the cookies of a host to all of its ports. The name of the cookie contains the port, and its value belongs
to this process, so that other consoles and other programs on this machine have no use for it.
"""

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import final

from aiohttp import web

from kaito.console.security.access import Action, User
from kaito.console.security.refusal import Refusal
from kaito.runtime.client import Client, HttpTransport


@final
@dataclass(frozen=True, slots=True)
class Owner:
    """The user who started the console."""

    name: str
    client: Client
    transport: HttpTransport
    writes: bool

    async def may(self, action: Action) -> bool:
        """Returns True: the API server applies the rights of the kubeconfig to every request."""
        del action
        return True


@final
class LinkAccess:
    """Accepts the requests of the browser that opened the link.

    Args:
        owner: the user of all requests.
        token: the token of the link; a new one if it is empty.
    """

    def __init__(self, owner: Owner, token: str = "") -> None:
        self._owner = owner
        self._session = secrets.token_urlsafe(32)
        self.token: str = token or secrets.token_urlsafe(32)
        self.port: int = 0
        """Port of the listener, once it is known."""

    @property
    def cookie(self) -> str:
        """Name of the cookie."""
        return f"kaito-console-{self.port}"

    @asynccontextmanager
    async def user(self, request: web.Request) -> AsyncGenerator[User]:
        """Yields the owner.

        Raises:
            Refusal: the cookie is missing or of another process.
        """
        found = request.cookies.get(self.cookie, "")
        if not secrets.compare_digest(found.encode(), self._session.encode()):
            raise Refusal(401, "this browser is not signed in: open the link that `kaito console` printed")
        yield self._owner

    def open(self, token: str) -> web.Response:
        """Returns the response to the link: it sets the cookie, and removes the token from the address.

        Raises:
            Refusal: the token is wrong.
        """
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            raise Refusal(401, "the token of the link is not valid: open the link that `kaito console` printed last")
        response = web.Response(status=303, headers={"Location": "/"})
        response.set_cookie(self.cookie, self._session, httponly=True, samesite="Strict", path="/")
        return response
