"""The state of a real API server in the order of its writes, in the interface that the reference model reads.

Each resource is watched on its own. The events of all resources are sorted by their revision and applied two seconds
later, so that what one write implies about another resource can be checked as in the simulation.
"""

import asyncio
import contextlib
import heapq
import json
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar, cast, final

import aiohttp

from kaito.runtime.clock import SystemClock
from kaito.runtime.meta import Resource
from kaito.simulation.manifests import Object

K = TypeVar("K", bound=Resource)
Key = tuple[str, str]
Listener = Callable[[str, Object, Object | None], None]

DELAY_SECONDS: Final = 2.0
"""Time from the arrival of an event until it is applied. Watches of one server differ by less."""

RETRY_SECONDS: Final = 0.5
WATCH_SECONDS: Final = 300
LIST_SECONDS: Final = 20.0

PATHS: Final = {
    "workspaces.kaito.sh": ("/apis/kaito.sh/v1beta1", "Workspace"),
    "machines.karpenter.sh": ("/apis/karpenter.sh/v1alpha5", "Machine"),
    "nodeclaims.karpenter.sh": ("/apis/karpenter.sh/v1", "NodeClaim"),
    "nodes": ("/api/v1", "Node"),
    "namespaces": ("/api/v1", "Namespace"),
    "pods": ("/api/v1", "Pod"),
    "services": ("/api/v1", "Service"),
    "configmaps": ("/api/v1", "ConfigMap"),
    "statefulsets.apps": ("/apis/apps/v1", "StatefulSet"),
    "jobs.batch": ("/apis/batch/v1", "Job"),
    "leases.coordination.k8s.io": ("/apis/coordination.k8s.io/v1", "Lease"),
}
"""Group, version and kind of the watched resources."""


@final
class History:
    """The objects of several resources after the writes up to a moment.

    Args:
        resources: keys of `PATHS`.
    """

    def __init__(self, resources: Iterable[str]) -> None:
        self.objects: dict[str, dict[Key, Object]] = {each: {} for each in resources}
        self.listeners: list[Listener] = []
        self.events: int = 0
        """Number of applied events."""
        self._waiting: list[tuple[int, int, float, str, bool, Object]] = []
        self._number = 0

    def note(self, resource: str, revision: int, obj: Object, *, exists: bool, at: float) -> None:
        """Adds an event that arrived at a time: the state of an object at a revision, the last one if it was
        deleted."""
        self._number += 1
        heapq.heappush(self._waiting, (revision, self._number, at, resource, exists, obj))

    def apply(self, until: float) -> None:
        """Applies the events in the order of their revisions, up to the first one that arrived later than that."""
        while self._waiting and self._waiting[0][2] <= until:
            _, _, _, resource, exists, obj = heapq.heappop(self._waiting)
            objects = self.objects[resource]
            previous = objects.get(key_of(obj))
            if exists:
                objects[key_of(obj)] = obj
            else:
                objects.pop(key_of(obj), None)
            self.events += 1
            for listener in self.listeners:
                listener(resource, obj, previous)


@final
class LiveServer:
    """Follows resources of an API server.

    Args:
        url: address of the API server.
        token: bearer token of an administrator.
        tls: context with the certificate authority of the API server.
        resources: keys of `PATHS`.
    """

    def __init__(self, url: str, token: str, tls: ssl.SSLContext, resources: Sequence[str]) -> None:
        self._url, self._tls = url, tls
        self._headers = {"Authorization": f"Bearer {token}"}
        self._history = History(resources)
        self._seen: dict[str, dict[Key, Object]] = {each: {} for each in resources}

    @property
    def events(self) -> int:
        """Number of events so far."""
        return self._history.events

    def stored(self, resource: str) -> dict[Key, Object]:
        """Returns the objects of a resource by namespace and name; the objects must not be changed."""
        return self._history.objects.get(resource, {})

    def on_write(self, listener: Listener) -> None:
        """Calls a function for each write with the resource, the object, and its previous state."""
        self._history.listeners.append(listener)

    async def follow(self) -> None:
        """Watches until cancelled."""
        async with asyncio.TaskGroup() as tasks, aiohttp.ClientSession(headers=self._headers) as session:
            for resource in self._seen:
                tasks.create_task(self._follow(session, resource))
            while True:
                await asyncio.sleep(RETRY_SECONDS)
                self._history.apply(time.monotonic() - DELAY_SECONDS)

    async def _follow(self, session: aiohttp.ClientSession, resource: str) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, _Expired):
                revision = await self._list(session, resource)
                while True:
                    revision = await self._watch(session, resource, revision)
            await asyncio.sleep(RETRY_SECONDS)

    def _path(self, resource: str) -> str:
        return f"{self._url}{PATHS[resource][0]}/{resource.partition('.')[0]}"

    async def _list(self, session: aiohttp.ClientSession, resource: str) -> int:
        async with asyncio.timeout(LIST_SECONDS), session.get(self._path(resource), ssl=self._tls) as answer:
            answer.raise_for_status()
            document = json.loads(await answer.read())
        revision = int(document["metadata"]["resourceVersion"])
        seen = self._seen[resource]
        found = {key_of(each): each for each in cast("list[Object]", document["items"])}
        for key, obj in found.items():
            present = seen.get(key)
            if present is None or version_of(present) != version_of(obj):
                self._note(resource, version_of(obj), obj, exists=True)
        for key in [each for each in seen if each not in found]:
            self._note(resource, revision, seen[key], exists=False)
        return revision

    async def _watch(self, session: aiohttp.ClientSession, resource: str, revision: int) -> int:
        query = f"?watch=true&resourceVersion={revision}&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=WATCH_SECONDS + 30)
        url = f"{self._path(resource)}{query}"
        async with session.get(url, ssl=self._tls, timeout=timeout, read_bufsize=2**20) as answer:
            answer.raise_for_status()
            buffer = b""
            async for chunk in answer.content.iter_any():
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in filter(None, lines):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise _Expired
                    revision = version_of(event["object"])
                    if event["type"] != "BOOKMARK":
                        self._note(resource, revision, event["object"], exists=event["type"] != "DELETED")
        return revision

    def _note(self, resource: str, revision: int, obj: Object, *, exists: bool) -> None:
        obj.setdefault("kind", PATHS[resource][1])
        obj.setdefault("apiVersion", PATHS[resource][0].removeprefix("/apis/").removeprefix("/api/"))
        seen = self._seen[resource]
        if exists:
            seen[key_of(obj)] = obj
        else:
            seen.pop(key_of(obj), None)
        self._history.note(resource, revision, obj, exists=exists, at=time.monotonic())


class _Expired(Exception):
    """The revision of a watch is too old, or the watch ended with an error."""


def key_of(obj: Mapping[str, Any]) -> Key:
    """Returns namespace and name."""
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def version_of(obj: Mapping[str, Any]) -> int:
    """Returns the revision of an object."""
    return int(obj["metadata"]["resourceVersion"])


@final
class LiveWorld:
    """What the steps and the reference model use of a simulated world."""

    def __init__(self, server: LiveServer) -> None:
        self.server = server

    @property
    def now(self) -> datetime:
        """The time of the events that are applied now."""
        return SystemClock().now() - timedelta(seconds=DELAY_SECONDS)

    def list(self, kind: type[K]) -> Sequence[K]:
        """Returns the stored objects of a kind."""
        resource = f"{kind.plural}.{kind.group()}".removesuffix(".")
        return [kind.model_validate(each) for each in self.server.stored(resource).values()]
