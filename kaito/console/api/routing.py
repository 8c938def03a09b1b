"""Parts that the handlers share: routes, JSON bodies, and the Workspace that a path names."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, cast, final

from aiohttp import web

from kaito.console.names import is_name
from kaito.console.security.access import User
from kaito.console.security.refusal import Refusal
from kaito.console.views.json_values import Json
from kaito.runtime.meta import ObjectKey

UserHandler = Callable[[web.Request, User], Awaitable[web.StreamResponse]]

MAX_BODY_BYTES: Final = 2**20
"""Largest body of a request."""


@final
@dataclass(frozen=True, slots=True)
class Route:
    """A path of the API."""

    method: str
    path: str
    handler: UserHandler


class Routes(Protocol):
    """A group of routes."""

    def routes(self) -> Sequence[Route]:
        """Returns the routes."""
        ...


def json_response(data: Json, status: int = 200) -> web.Response:
    """Returns a response that no browser stores."""
    return web.json_response(data, status=status, headers={"Cache-Control": "no-store"})


async def read_object(request: web.Request) -> Json:
    """Returns the JSON object in the body.

    Raises:
        Refusal: the body is too large, or is not a JSON object.
    """
    if request.content_type != "application/json":
        raise Refusal(415, "the body must be JSON: send the header Content-Type: application/json")
    try:
        found: object = json.loads(await request.read())
    except web.HTTPRequestEntityTooLarge:
        raise too_large() from None
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON: send one JSON object") from None
    if not isinstance(found, dict):
        raise Refusal(400, "the body is not a JSON object: send one JSON object")
    return cast("Json", found)


def too_large() -> Refusal:
    """Returns the refusal of a body."""
    return Refusal(413, f"the body is larger than {MAX_BODY_BYTES // 2**20} MiB: send less")


def text_of(body: Json, name: str) -> str:
    """Returns a text of a body.

    Raises:
        Refusal: it is missing or is not a text.
    """
    value = body.get(name)
    if not isinstance(value, str):
        raise Refusal(400, f"{name} is missing or is not a text: send it in the body", name)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refusal(400, f"{name} contains half a character (a lone surrogate): correct it", name) from None
    return value


def key_of(request: web.Request) -> ObjectKey:
    """Returns the namespace and the name in the path.

    Raises:
        Refusal: one of them cannot be a name.
    """
    names = (request.match_info["namespace"], request.match_info["name"])
    for name in names:
        if not is_name(name):
            raise Refusal(404, f"{name!r} cannot be a name in Kubernetes: open a Workspace from the list")
    return ObjectKey(*names)
