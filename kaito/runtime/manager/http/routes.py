"""Paths of the program on the manager's ports; aiohttp serves a port that has one."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Literal, final

from kaito.runtime.errors import ConfigurationError

if TYPE_CHECKING:
    from aiohttp import web

HttpHandler = Callable[["web.Request"], Awaitable["web.StreamResponse"]]
"""A handler of aiohttp."""

Port = Literal["metrics", "health"]

_RESERVED = {"metrics": ("/metrics", "/debug"), "health": ("/healthz", "/readyz")}
"""Reserved paths of each port, with all paths below them."""


@final
class Routes:
    """Paths of the program on the manager's ports."""

    def __init__(self) -> None:
        self._handlers: dict[tuple[Port, str], HttpHandler] = {}
        self._sealed = False

    def add(self, path: str, handler: HttpHandler, port: Port) -> None:
        """Adds a path, for all HTTP methods.

        Raises:
            ConfigurationError: the path is taken or malformed, the handler is not an async function, the port does not
                exist, or the servers have started.
        """
        reserved = _RESERVED.get(port)
        if reserved is None:
            message = f"serve({path!r}): on={port!r} is neither 'metrics' nor 'health'"
        elif self._sealed:
            message = f"serve({path!r}): the manager has started; add handlers before"
        elif not path.startswith("/") or path == "/" * len(path) or "?" in path:
            message = f"serve({path!r}): a path begins with a slash and has a name, for example '/plan'"
        elif any(path == taken or path.startswith(f"{taken}/") for taken in reserved):
            message = f"serve({path!r}): the path is the manager's own; choose another"
        elif (port, path) in self._handlers:
            message = f"serve({path!r}): something is served there already"
        elif not _is_async(handler):
            message = f"serve({path!r}): {handler!r} is not an async function of aiohttp's request"
        else:
            self._handlers[port, path] = handler
            return
        raise ConfigurationError(message)

    def seal(self) -> None:
        """Rejects further paths; called when the servers start."""
        self._sealed = True

    def of(self, port: Port) -> Mapping[str, HttpHandler]:
        """The handlers of a port, by path."""
        return {path: handler for (on, path), handler in self._handlers.items() if on == port}


def _is_async(handler: object) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004 - objects with async call
