"""Which kinds the server serves, and where: asked lazily, one group version at a time.

`Client` uses it for kinds declared without a plural; operators may ask whether a kind is installed. Answers are kept
until they prove wrong: an unknown kind, or a 404 for a known one, asks the server again, so that a CRD installed (or
removed) later is noticed without a restart.
"""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from kaito.runtime.client.agent import user_agent as own_agent
from kaito.runtime.client.codec import json_object
from kaito.runtime.client.observe import NoObserver, RequestObserver
from kaito.runtime.client.path import group_path
from kaito.runtime.client.rest_mapping import RestMapping
from kaito.runtime.client.sender import ApiRequest, RetryOn, Sender
from kaito.runtime.client.transport import Transport
from kaito.runtime.clock import monotonic
from kaito.runtime.errors import NotFound, api_error
from kaito.runtime.meta import GroupVersionKind

UNKNOWN_SECONDS = 1.0
"""An unknown kind is not asked for again sooner: many objects of a kind not installed must not flood the server."""


@dataclass(frozen=True, slots=True)
class ApiResource:
    """A resource as the server describes it."""

    plural: str
    kind: str
    namespaced: bool
    verbs: frozenset[str]
    short_names: tuple[str, ...] = ()
    subresources: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Group:
    """What was learned of one group version, and when."""

    resources: Mapping[str, ApiResource]
    asked_at: float


@final
class ServerDiscovery:
    """Asks one API server."""

    def __init__(self, transport: Transport, *, user_agent: str = "", observer: RequestObserver | None = None) -> None:
        self._sender = Sender(
            transport,
            user_agent=user_agent or own_agent("kaito-runtime"),
            limiter=None,
            observer=observer or NoObserver(),
            rng=random.Random(),  # noqa: S311 -- spreads retries, guards nothing
        )
        self._groups: dict[str, _Group] = {}
        self._asking = asyncio.Lock()

    async def rest_mapping(self, gvk: GroupVersionKind) -> RestMapping:
        """Where the kind lives.

        Raises:
            NotFound: the server does not serve it.
            TransportError: the server did not answer.
        """
        resource = await self.find(gvk)
        if resource is None:
            message = f"the server does not serve {gvk}: is its CustomResourceDefinition installed?"
            raise api_error(
                404, {"message": message, "reason": "NotFound"}, request=f"GET {group_path(gvk.api_version)}"
            )
        return RestMapping(resource.plural, resource.namespaced)

    async def find(self, gvk: GroupVersionKind) -> ApiResource | None:
        """The resource of the kind, or None when the server does not serve it."""
        group = self._groups.get(gvk.api_version)
        if group is None or (gvk.kind not in group.resources and monotonic() - group.asked_at >= UNKNOWN_SECONDS):
            async with self._asking:
                if self._groups.get(gvk.api_version) is group:
                    self._groups[gvk.api_version] = await self._ask(gvk.api_version)
            group = self._groups[gvk.api_version]
        return group.resources.get(gvk.kind)

    def invalidate(self, gvk: GroupVersionKind) -> None:
        """Ask again next time: a request for the kind was answered as if it were not served."""
        self._groups.pop(gvk.api_version, None)

    async def _ask(self, api_version: str) -> _Group:
        request = ApiRequest("GET", group_path(api_version), RetryOn.ANY_FAILURE)
        try:
            reply = await self._sender.send(request)
        except NotFound:
            return _Group({}, monotonic())
        entries: list[Mapping[str, Any]] = json_object(reply.body, str(request)).get("resources") or []
        return _Group(_resources(entries), monotonic())


def _resources(entries: list[Mapping[str, Any]]) -> dict[str, ApiResource]:
    """By kind; entries such as `pods/status` become the subresources of `pods`."""
    subresources: dict[str, set[str]] = {}
    for entry in entries:
        plural, slash, subresource = str(entry.get("name", "")).partition("/")
        if slash:
            subresources.setdefault(plural, set()).add(subresource)
    return {
        str(entry["kind"]): ApiResource(
            plural=str(entry["name"]),
            kind=str(entry["kind"]),
            namespaced=bool(entry.get("namespaced")),
            verbs=frozenset(entry.get("verbs") or ()),
            short_names=tuple(entry.get("shortNames") or ()),
            subresources=frozenset(subresources.get(str(entry["name"]), ())),
        )
        for entry in entries
        if "/" not in str(entry.get("name", "/")) and entry.get("kind")
    }
