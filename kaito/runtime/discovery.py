"""Discovery: which kinds an API server serves, and their resource names. Read lazily, for one group version at a time.

`Client` uses it for kinds that are declared without a plural; operators use it to check whether a kind is installed.
Results are cached. An unknown kind, and a 404 for a known one, lead to another request, so that a CRD that is installed
(or removed) later is noticed without a restart.
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
"""Minimum interval of requests for an unknown kind, so that many objects of it do not overload the server."""


@dataclass(frozen=True, slots=True)
class ApiResource:
    """A resource in the server's discovery document."""

    plural: str
    kind: str
    namespaced: bool
    verbs: frozenset[str]
    short_names: tuple[str, ...] = ()
    subresources: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Group:
    """The discovered resources of one group version."""

    resources: Mapping[str, ApiResource]
    read_at: float


@final
class ServerDiscovery:
    """Discovery of one API server."""

    def __init__(
        self,
        transport: Transport,
        *,
        user_agent: str = "",
        observer: RequestObserver | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._sender = Sender(
            transport,
            user_agent=user_agent or own_agent("kaito-runtime"),
            limiter=None,
            observer=observer or NoObserver(),
            rng=rng or random.Random(),  # noqa: S311 -- spreads retries, guards nothing
        )
        self._groups: dict[str, _Group] = {}
        self._lock = asyncio.Lock()

    async def rest_mapping(self, gvk: GroupVersionKind) -> RestMapping:
        """The resource name and the scope of the kind.

        Raises:
            NotFound: the server does not serve the kind.
            TransportError: the server cannot be reached.
        """
        resource = await self.find(gvk)
        if resource is None:
            message = f"the server does not serve {gvk}: is its CustomResourceDefinition installed?"
            raise api_error(
                404, {"message": message, "reason": "NotFound"}, request=f"GET {group_path(gvk.api_version)}"
            )
        return RestMapping(resource.plural, resource.namespaced)

    async def find(self, gvk: GroupVersionKind) -> ApiResource | None:
        """The resource of the kind; None if the server does not serve it."""
        group = self._groups.get(gvk.api_version)
        if group is None or (gvk.kind not in group.resources and monotonic() - group.read_at >= UNKNOWN_SECONDS):
            async with self._lock:
                if self._groups.get(gvk.api_version) is group:
                    self._groups[gvk.api_version] = await self._read(gvk.api_version)
            group = self._groups[gvk.api_version]
        return group.resources.get(gvk.kind)

    def invalidate(self, gvk: GroupVersionKind) -> None:
        """Drops the cached result, after a 404 for the kind or its version."""
        self._groups.pop(gvk.api_version, None)

    async def _read(self, api_version: str) -> _Group:
        request = ApiRequest("GET", group_path(api_version), RetryOn.ANY_FAILURE)
        try:
            reply = await self._sender.send(request)
        except NotFound:
            return _Group({}, monotonic())
        entries: list[Mapping[str, Any]] = json_object(reply.body, str(request)).get("resources") or []
        return _Group(_resources(entries), monotonic())


def _resources(entries: list[Mapping[str, Any]]) -> dict[str, ApiResource]:
    """The resources by kind; entries such as `pods/status` become subresources of `pods`."""
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
