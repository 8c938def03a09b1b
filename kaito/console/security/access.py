"""`Access`: identifies the user of a request, and answers what the user may do."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol, final

from aiohttp import web

from kaito.runtime.client import Client, HttpTransport

FIELD_MANAGER: Final = "kaito-console"
"""Field manager of the Workspaces that are created in the console."""


@final
@dataclass(frozen=True, slots=True)
class Action:
    """A verb on a resource, in the words of Kubernetes RBAC."""

    verb: str
    resource: str
    group: str = ""
    namespace: str = ""
    """Empty for all namespaces, and for resources of the cluster."""
    name: str = ""
    subresource: str = ""

    def __str__(self) -> str:
        resource = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        where = f" in the namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {resource}{f'.{self.group}' if self.group else ''}{where}"


class User(Protocol):
    """The user of a request."""

    @property
    def name(self) -> str:
        """The name that is shown."""
        ...

    @property
    def client(self) -> Client:
        """Sends requests with the rights of the user."""
        ...

    @property
    def transport(self) -> HttpTransport:
        """The network of the client."""
        ...

    @property
    def writes(self) -> bool:
        """Whether the console accepts writes of the user at all; the API server decides about each."""
        ...

    async def may(self, action: Action) -> bool:
        """Returns whether the user has a right.

        Raises:
            Refusal: the API server cannot answer.
        """
        ...


class Access(Protocol):
    """Identifies users."""

    def user(self, request: web.Request) -> AbstractAsyncContextManager[User]:
        """Yields the user of a request, whose connections are closed at the end.

        Raises:
            Refusal: the request has no valid credentials.
        """
        ...
