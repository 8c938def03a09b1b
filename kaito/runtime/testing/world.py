"""`World`: a cluster in memory and in virtual time, to test operators in.

    async def test_waits_for_nodes(world: World) -> None:
        world.put(Workspace.sample("phi"))
        async with world.manager(workspace_controller):
            await world.settle()
            assert world.get(Workspace, "phi").condition("ResourceReady").reason == "NodesPending"
            world.fail_next("PATCH", NodeClaim, status=429, retry_after=7)
            await world.advance(30)

Objects are put into and read from the API server directly, at once, past every cache and fault. Kinds the server does
not know are installed as CRDs generated from their models. Nothing here sleeps in real time.
"""

import asyncio
import random
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, cast, final

import msgspec

from kaito.apiserver.faults import Fault
from kaito.apiserver.server import ApiServer, Served
from kaito.apiserver.wire import HttpRequest
from kaito.runtime.cache import Cached
from kaito.runtime.client import codec
from kaito.runtime.client.path import label_query, resource_path
from kaito.runtime.client.sender import failure
from kaito.runtime.clock import LoopClock, monotonic
from kaito.runtime.controller import Controller, Periodic
from kaito.runtime.crd import Version, crd
from kaito.runtime.errors import AlreadyExists, NotFound
from kaito.runtime.kinds import Event
from kaito.runtime.manager import Manager, Runnable, Settings
from kaito.runtime.meta import LabelSelector, Resource
from kaito.runtime.testing.admission import InProcessWebhooks
from kaito.runtime.testing.transport import InMemoryTransport
from kaito.runtime.testing.virtual import VirtualTimeLoop
from kaito.runtime.webhook import Webhook

R = TypeVar("R", bound=Resource)

OWN_AGENT = "world/1"
"""User agent of the test's own reads and writes: not counted, never hit by a fault."""

CLUSTER_AGENT = "cluster/1"
"""User agent of what stands for the cluster's own controllers: not counted, never hit by a fault."""

SETTLE_LIMIT_SECONDS = 600.0
"""Virtual time after which something that does not come to rest is reported."""

START = datetime(2030, 1, 1, tzinfo=UTC)
"""Wall time when the loop's time is 0."""


class NotSettled(AssertionError):
    """Work did not come to rest; the message names what is still going on."""


class Busy(Protocol):
    """Something `settle` waits for."""

    def busy(self) -> Sequence[str]:
        """What is going on right now, one phrase each; empty at rest. Delayed work does not count."""
        ...


@final
class World:
    """An empty cluster with the namespaces every cluster has. Make it inside a running `VirtualTimeLoop`.

    Args:
        seed: makes uids and generated names repeatable.
    """

    def __init__(self, *, seed: int = 1) -> None:
        self.clock: LoopClock = LoopClock(START)
        self._webhooks = InProcessWebhooks()
        self.server: ApiServer = ApiServer(now=self.clock.now, seed=seed, webhooks=self._webhooks.call)
        self._stack = AsyncExitStack()
        self._watched: list[Busy] = []
        self._transports: list[InMemoryTransport] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    # -- objects -----------------------------------------------------------------------------------------------------

    def put(self, obj: R) -> R:
        """Create the object, or replace it, status included. Returns what the server stored.

        A namespaced object without a namespace goes to `default`. A kind the server does not know is installed first.

        Raises:
            ApiError: the server refuses the object (`Invalid` with the fields, for example).
        """
        self.install(type(obj))
        manifest = obj.to_dict()
        if obj.namespaced:
            manifest["metadata"] = {"namespace": "default"} | manifest.get("metadata", {})
        namespace, name = manifest["metadata"].get("namespace", ""), obj.name
        path = _path(type(obj), namespace)
        for field in ("resourceVersion", "uid", "creationTimestamp", "generation", "managedFields"):
            manifest["metadata"].pop(field, None)
        try:
            stored = self._send("POST", path, manifest)
        except AlreadyExists:
            target = _path(type(obj), namespace, name)
            present: dict[str, Any] = msgspec.json.decode(self._send("GET", target))
            manifest["metadata"]["resourceVersion"] = present["metadata"]["resourceVersion"]
            stored = self._send("PUT", target, manifest)
        stored_object: dict[str, Any] = msgspec.json.decode(stored)
        status = manifest.get("status")
        if status is not None and stored_object.get("status") != status:
            name = stored_object["metadata"]["name"]
            with suppress(NotFound):  # a kind without a status subresource: the write above stored it
                stored = self._send(
                    "PUT", _path(type(obj), namespace, name, "status"), stored_object | {"status": status}
                )
        return codec.decode(type(obj), stored)

    def get(self, kind: type[R], name: str, namespace: str = "default") -> R:
        """The object as the server has it.

        Raises:
            NotFound: there is none.
        """
        return codec.decode(kind, self._send("GET", _path(kind, namespace, name)))

    def find(self, kind: type[R], name: str, namespace: str = "default") -> R | None:
        """The object as the server has it, or None."""
        try:
            return self.get(kind, name, namespace)
        except NotFound:
            return None

    def events(self, regarding: Resource | None = None) -> list[Event]:
        """The events recorded, oldest first; of one object when given."""
        events = self.list(Event)
        if regarding is not None:
            events = [event for event in events if _regards(event, regarding)]
        return sorted(events, key=lambda event: int(event.metadata.resource_version))

    def list(
        self, kind: type[R], namespace: str = "", *, labels: LabelSelector | Mapping[str, str] | str | None = None
    ) -> list[R]:
        """The objects the server has, ordered by namespace and name; an empty namespace means all."""
        query = (("labelSelector", label_query(labels)),) if labels else ()
        page = codec.page(self._send("GET", _path(kind, namespace, given=True), query=query), kind.kind)
        objects = [codec.decode(kind, bytes(raw)) for raw in page.items or []]
        return sorted(objects, key=lambda obj: obj.key)

    def delete(self, kind: type[Resource], name: str, namespace: str = "default") -> None:
        """Delete the object; finalizers hold it as they do in a cluster.

        Raises:
            NotFound: there is none.
        """
        self._send("DELETE", _path(kind, namespace, name))

    def patch(
        self, kind: type[R], name: str, change: Mapping[str, Any], namespace: str = "default", *, subresource: str = ""
    ) -> R:
        """Apply a JSON merge patch, as another client would. Returns what the server stored."""
        path = _path(kind, namespace, name, subresource)
        return codec.decode(kind, self._send("PATCH", path, change, content_type="application/merge-patch+json"))

    def install(self, *kinds: type[Resource] | Mapping[str, Any]) -> None:
        """Make the server know kinds: models (a CRD is generated unless it is known already) or CRD manifests."""
        for kind in kinds:
            if isinstance(kind, Mapping):
                self._install(kind)
            elif not self._is_served(kind):
                self._install(crd([Version(model=kind, storage=True)]))

    def admit(self, *webhooks: Webhook[Any]) -> None:
        """Have the server ask these webhooks about every write, the test's own included. No sockets are involved.

        Functions that really wait cannot be asked by `put` and `patch`, only by writes through a client.
        """
        for webhook in webhooks:
            self.install(webhook.kind)
            for manifest in self._webhooks.add(webhook):
                self._send("POST", f"/apis/{manifest['apiVersion']}/{manifest['kind'].lower()}s", manifest)

    def _install(self, manifest: Mapping[str, Any]) -> None:
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        try:
            self._send("POST", path, manifest)
        except AlreadyExists:
            target = f"{path}/{manifest['metadata']['name']}"
            present: dict[str, Any] = msgspec.json.decode(self._send("GET", target))
            version = {"resourceVersion": present["metadata"]["resourceVersion"]}
            self._send("PUT", target, dict(manifest) | {"metadata": manifest["metadata"] | version})

    def _is_served(self, kind: type[Resource]) -> bool:
        try:
            self._send("GET", _path(kind, "", given=True), query=(("limit", "1"),))
        except NotFound:
            return False
        return True

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: tuple[tuple[str, str], ...] = (),
        content_type: str = "application/json",
    ) -> bytes:
        headers = {"user-agent": OWN_AGENT, "content-type": content_type}
        data = b"" if body is None else msgspec.json.encode(body)
        reply = _at_once(self.server.handle(HttpRequest(method, path, query, headers, data)))
        content = cast("bytes", reply.body)
        if reply.status >= 400:
            raise failure(reply.status, reply.headers, content, f"{method} {path}")
        return content

    # -- managers ----------------------------------------------------------------------------------------------------

    def transport(self, *, latency: float = 0.0, agent: str = "") -> InMemoryTransport:
        """A new connection to the cluster, waited for by `settle`."""
        transport = InMemoryTransport(self.server, latency=latency, headers={"user-agent": agent} if agent else {})
        self._transports.append(transport)
        return transport

    def manager(
        self,
        *controllers: Controller[Any] | Periodic,
        cache: Sequence[Cached] = (),
        live: Sequence[type[Resource]] = (),
        lease: str | None = None,
        runnables: Sequence[Runnable] = (),
        settings: Settings | None = None,
        transport: InMemoryTransport | None = None,
        name: str = "test",
        agent: str = "",
        seed: int = 1,
    ) -> Manager:
        """A manager on this cluster, in its time, without HTTP endpoints; use it with `async with`.

        Kinds it needs are installed first. `settle` waits for its queues. Without `lease` it leads at once. Arguments
        are those of `Manager`; `agent` overrides the user agent its requests are logged under.
        """
        declared = [kind for controller in controllers for kind in getattr(controller, "kinds", ())]
        self.install(*declared, *(cached.kind for cached in cache), *live)
        manager = Manager(
            settings or Settings(metrics_bind_address="0", health_probe_bind_address="0"),
            controllers=controllers,
            cache=cache,
            live=live,
            lease=lease,
            runnables=runnables,
            transport=transport or self.transport(agent=agent),
            clock=self.clock,
            name=name,
            dice=random.Random(seed),  # noqa: S311 - waits, not secrets
        )
        self.watch_over(manager)
        return manager

    async def start(self, *controllers: Controller[Any] | Periodic) -> None:
        """Run controllers that stand for the cluster's own, such as `workloads()`, until the end of the test.

        Their requests are neither counted nor hit by faults.
        """
        from kaito.runtime.testing.cluster import CACHE

        manager = self.manager(*controllers, cache=CACHE, name="cluster", agent=CLUSTER_AGENT)
        await self._stack.enter_async_context(manager)

    def watch_over(self, busy: Busy) -> None:
        """Have `settle` wait for something of yours too."""
        self._watched.append(busy)

    # -- time --------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The cluster's wall time."""
        return self.clock.now()

    async def settle(self, *, limit: float = SETTLE_LIMIT_SECONDS) -> None:
        """Wait until nothing is left to do: queues empty, no reconcile running, no request or event on its way.

        Time moves on only as far as running work waits for it. Delayed keys (`Again`, backoff) are not waited for:
        use `advance`.

        Raises:
            NotSettled: after `limit` virtual seconds something is still going on.
        """
        loop = _virtual_loop()
        deadline = monotonic() + limit
        await loop.quiet()
        while busy := self._busy():
            if monotonic() >= deadline:
                message = f"not at rest after {limit:g} s: " + "; ".join(busy)
                raise NotSettled(message)
            await loop.tick()
            await loop.quiet()

    async def advance(self, seconds: float) -> None:
        """Let virtual time pass: timers fire in order, then everything comes to rest."""
        await asyncio.sleep(seconds)
        await self.settle()

    def _busy(self) -> Sequence[str]:
        requests = sum(transport.in_flight for transport in self._transports)
        busy = [phrase for watched in self._watched for phrase in watched.busy()]
        return [*busy, f"{requests} requests without an answer"] if requests else busy

    # -- trouble -----------------------------------------------------------------------------------------------------

    def fail_next(
        self,
        method: str = "",
        kind: type[Resource] | None = None,
        *,
        status: int = 0,
        retry_after: int | None = None,
        message: str = "",
        name: str = "",
        subresource: str | None = None,
        times: int | None = 1,
        drop_connection: bool = False,
        hang: bool = False,
        delay: float = 0.0,
    ) -> Fault:
        """Trouble for the next matching requests of the code under test.

        Args:
            method: HTTP method; empty for any.
            kind: kind asked about; None for any.
            status: answer this instead of serving (500 when no other trouble is named).
            retry_after: seconds of the `Retry-After` header.
            message: the answer's sentence.
            name: only requests about this object.
            subresource: only this one ("" = the object itself); None for any.
            times: how many requests; None until the fault is removed (`world.server.faults.remove`).
            drop_connection: serve the request, then break the connection instead of answering.
            hang: never answer.
            delay: seconds before the request is served.
        """
        if not (status or drop_connection or hang or delay):
            status = 500
        return self.server.inject(
            Fault(
                method=method,
                kind=kind.kind if kind is not None else "",
                name=name,
                subresource=subresource,
                times=times,
                status=status,
                retry_after=retry_after,
                message=message,
                drop_connection=drop_connection,
                hang=hang,
                delay=delay,
                when=_is_under_test,
            )
        )

    def lag(self, kind: type[Resource] | None, seconds: float) -> Fault:
        """Have watchers learn of every change of the kind that much later, until the fault is removed."""
        return self.server.inject(Fault(kind=kind.kind if kind is not None else "", times=None, lag=seconds))

    def cut_watches(self, kind: type[Resource] | None = None) -> int:
        """End the open watches of a kind (or all), as the server does now and then; returns how many there were."""
        return self.server.cut_watches(kind.kind if kind is not None else "")

    # -- looking back ------------------------------------------------------------------------------------------------

    @property
    def requests(self) -> Sequence[Served]:
        """Every request of the code under test, oldest first."""
        ours = (OWN_AGENT, CLUSTER_AGENT)
        return [request for request in self.server.requests if request.user_agent not in ours]

    def forget_requests(self) -> None:
        """Start counting anew."""
        self.server.requests.clear()

    def count(
        self, verb: str = "", kind: type[Resource] | None = None, *, name: str = "", subresource: str | None = None
    ) -> int:
        """How many requests the code under test made, refused ones included.

        Args:
            verb: an HTTP method in upper case, or `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
            kind: kind asked about; None for any.
            name: only requests about this object.
            subresource: only this one ("" = the object itself); None for any.
        """
        return sum(
            verb in {"", request.method, request.verb}
            and (kind is None or request.kind == kind.kind)
            and name in {"", request.name}
            and subresource in {None, request.subresource}
            for request in self.requests
        )


def _regards(event: Event, obj: Resource) -> bool:
    regarding: Mapping[str, Any] = event.to_dict().get("regarding") or {}
    if obj.uid and regarding.get("uid"):
        return bool(regarding["uid"] == obj.uid)
    return (regarding.get("kind"), regarding.get("name")) == (obj.kind, obj.name)


def _is_under_test(request: HttpRequest) -> bool:
    return request.headers.get("user-agent") not in {OWN_AGENT, CLUSTER_AGENT}


def _path(kind: type[Resource], namespace: str, name: str = "", subresource: str = "", *, given: bool = False) -> str:
    if not kind.namespaced:
        namespace = ""
    elif not given:
        namespace = namespace or "default"
    return resource_path(kind.api_version, kind.plural, namespace=namespace, name=name, subresource=subresource)


def _virtual_loop() -> VirtualTimeLoop:
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualTimeLoop):
        message = "settle() needs virtual time: take the `world` fixture, or run on VirtualTimeLoop"
        raise TypeError(message)
    return loop


T = TypeVar("T")


def _at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that does not wait for anything: the server's reads and writes, without webhooks or faults."""
    try:
        work.send(None)
    except StopIteration as end:
        return cast("T", end.value)
    work.close()
    message = "the server waited (an admission webhook or a fault of your own): write through a client instead"
    raise RuntimeError(message)
