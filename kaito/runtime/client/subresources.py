"""Tokens of service accounts, and reads of the scale of any kind."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from kaito.runtime.client.client import Client
from kaito.runtime.errors import ConfigurationError, UnreadableObject
from kaito.runtime.kinds import ServiceAccount
from kaito.runtime.meta import Model, Resource
from kaito.runtime.meta.model import Timestamp

_BINDABLE: Final = {"Pod": "v1", "Secret": "v1", "Node": "v1"}

M = TypeVar("M", bound=Model)

SHORTEST_SECONDS: Final = 600
"""Shortest life of a token that the server issues."""


@dataclass(frozen=True, slots=True)
class AccountToken:
    """A token of a service account."""

    token: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Scale:
    """The replicas of an object, as a HorizontalPodAutoscaler sees them."""

    replicas: int
    """Number that is wanted."""
    current: int
    """Number that the controller has observed."""
    selector: str
    """Label selector of its pods."""


class _TokenStatus(Model):
    token: str
    expiration_timestamp: Timestamp


class _TokenRequest(Model):
    status: _TokenStatus


class _ScaleSpec(Model):
    replicas: int = 0


class _ScaleStatus(Model):
    replicas: int = 0
    selector: str = ""


class _Scale(Model):
    spec: _ScaleSpec = _ScaleSpec()
    status: _ScaleStatus = _ScaleStatus()


async def request_token(
    client: Client,
    name: str,
    namespace: str,
    *,
    audiences: Sequence[str] = (),
    seconds: int = 3600,
    bound_to: Resource | None = None,
) -> AccountToken:
    """Requests a token of a service account. The role needs `create` of `serviceaccounts/token`.

    Args:
        client: Sends the request.
        name: Name of the ServiceAccount.
        namespace: Its namespace.
        audiences: Audiences of the token; by default those of the API server.
        seconds: Life of the token, at least 600; the server may change it.
        bound_to: A Pod, Secret or Node: the token becomes invalid when the object is deleted.

    Raises:
        NotFound: The ServiceAccount does not exist.
        Invalid: An argument is not allowed.
        ConfigurationError: `bound_to` is another kind, or the life is too short.
    """
    if seconds < SHORTEST_SECONDS:
        raise ConfigurationError(f"token of {namespace}/{name}: seconds={seconds} is less than {SHORTEST_SECONDS}")
    spec: dict[str, Any] = {"audiences": list(audiences), "expirationSeconds": seconds}
    if bound_to is not None:
        if _BINDABLE.get(bound_to.kind) != bound_to.api_version:
            raise ConfigurationError(f"token of {namespace}/{name}: {bound_to.kind} cannot bind a token")
        spec["boundObjectRef"] = {
            "apiVersion": bound_to.api_version,
            "kind": bound_to.kind,
            "name": bound_to.name,
            "uid": bound_to.uid,
        }
    path = await client.object_target(ServiceAccount, name, namespace, "token")
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    found = _parsed(_TokenRequest, await client.raw("POST", path, body=body), path).status
    return AccountToken(found.token, found.expiration_timestamp)


async def read_scale(client: Client, target: Resource) -> Scale:
    """Reads the `scale` subresource of an object; `Client.scale` sets it.

    Raises:
        NotFound: The object does not exist, or its kind has no such subresource.
    """
    path = await client.object_target(type(target), target.name, target.namespace, "scale")
    found = _parsed(_Scale, await client.raw("GET", path), path)
    return Scale(found.spec.replicas, found.status.replicas, found.status.selector)


def _parsed(kind: type[M], document: dict[str, Any], path: str) -> M:
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
        raise UnreadableObject(f"{path}: malformed response: {fields}") from None
