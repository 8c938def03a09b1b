"""`ApiServer`: an in-memory Kubernetes API server, without a socket.

`handle` is the only entry point: the aiohttp adapter (`serve`), in-process transports and tests all call it. The server
starts no tasks or threads and uses only the clock it is given; it waits in the running event loop only.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from ipaddress import IPv4Network

from kaito.apiserver import errors
from kaito.apiserver.admission.webhooks import Admission
from kaito.apiserver.apiextensions.conversion import Conversions
from kaito.apiserver.apiextensions.definitions import STORAGE as DEFINITIONS, Definitions
from kaito.apiserver.auth.escalation import check_escalation
from kaito.apiserver.auth.identity import identify, impersonate
from kaito.apiserver.auth.rbac import Attributes, Authorizer, Denial, Mode, attributes_of, creation
from kaito.apiserver.auth.reviews import review
from kaito.apiserver.bodies.decode import media_type
from kaito.apiserver.deletion.cleanup import Cleanup
from kaito.apiserver.deletion.delete import delete_one
from kaito.apiserver.deletion.garbage_collector import Collector
from kaito.apiserver.discovery import groups as discovery
from kaito.apiserver.discovery.openapi import OpenApi
from kaito.apiserver.faults import ConnectionDropped, Fault, Faults, RequestInfo, apply_faults
from kaito.apiserver.printers.presentation import negotiate
from kaito.apiserver.reads import read as reads
from kaito.apiserver.reads.watch import open_watch
from kaito.apiserver.registry.builtin import builtin_resources
from kaito.apiserver.registry.resources import Registry, view
from kaito.apiserver.registry.routes import Target, UnknownPath, parse
from kaito.apiserver.registry.selectors import selection
from kaito.apiserver.registry.server_state import Context, ServerState
from kaito.apiserver.registry.store import Backup, Change, Store
from kaito.apiserver.webhook_client import WebhookCaller, call_webhook
from kaito.apiserver.wire import HttpRequest, HttpResponse, Object, json_response, raw_response, text_response
from kaito.apiserver.writes.subresources import UPGRADED, LogSource, Subresources
from kaito.apiserver.writes.writer import Writer

VERSION: Object = {
    "major": "1",
    "minor": "35",
    "gitVersion": "v1.35.4+kaito",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "CPython",
    "platform": "any",
}
"""Answer of `/version`: the Kubernetes release that the contract tests compare with."""

RETURNED_WHEN_DELETED = frozenset(
    {
        "pods",
        "services",
        "serviceaccounts",
        "namespaces",
        "persistentvolumes",
        "persistentvolumeclaims",
        "podtemplates",
        "resourcequotas",
        "storageclasses.storage.k8s.io",
        "csidrivers.storage.k8s.io",
        "csinodes.storage.k8s.io",
    }
)
"""Built-in types whose registry has `ReturnDeletedObject`: a completed delete returns the object."""
INITIAL_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
REQUEST_LOG_LIMIT = 100_000


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One line of the request log."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    status: int
    user_agent: str
    verb: str = ""
    kind: str = ""
    name: str = ""
    namespace: str = ""
    subresource: str = ""


class ApiServer:
    """One API server with its objects.

    Args:
        now: the clock for time stamps; the real UTC time by default.
        history: number of changes of each resource type that are kept for watches to resume.
        seed: makes uids and generated names repeatable.
        collect_garbage: whether owner garbage collection and namespace deletion run inside the server. A bare control
            plane (kube-apiserver and etcd) has neither; their controllers live in kube-controller-manager.
        webhooks: how admission and conversion webhooks are reached; over HTTP by default, a function of the same
            process in tests.
        tokens: bearer tokens and the users they stand for; with any given, requests without one get 401.
        authorization: `RBAC` evaluates the stored roles and bindings for every user outside `system:masters`;
        `AlwaysAllow` authorizes every request. service_cidr: range of the cluster IPs of Services.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime] | None = None,
        history: int = 1000,
        seed: int | None = None,
        collect_garbage: bool = True,
        tokens: Mapping[str, str] | None = None,
        authorization: Mode = "AlwaysAllow",
        service_cidr: str = "10.0.0.0/16",
        webhooks: WebhookCaller = call_webhook,
    ) -> None:
        clock = now or (lambda: datetime.now(UTC))
        rng = random.Random(seed)  # noqa: S311 - names, not secrets
        registry, store = Registry(builtin_resources()), Store(history)
        self._state = ServerState(registry, store, clock, rng, dict(tokens or {}), IPv4Network(service_cidr))
        self._definitions = Definitions(self._state)
        self._authorizer = Authorizer(self._state, authorization)
        self.permissions_used: set[tuple[str, str, str, str]] = set()
        """Every permission that a request has needed: user agent, verb, API group and resource (with its
        subresource)."""
        self._conversions = Conversions(self._state, webhooks)
        self._admission = Admission(self._state, webhooks, self._conversions)
        self._writer = Writer(
            self._state, self._admission, self._conversions, partial(check_escalation, self._authorizer)
        )
        self._openapi = OpenApi(self._state.registry)
        self._subresources = Subresources(self._state, self._writer)
        Cleanup(self._state, controllers=collect_garbage)
        if collect_garbage:
            Collector(self._state)
        self.faults: Faults = Faults()
        self.requests: deque[RequestRecord] = deque(maxlen=REQUEST_LOG_LIMIT)
        """Every request handled so far, oldest first."""
        self._state.store.delivery = self._delivery
        self._create_namespaces()

    @property
    def resource_version(self) -> int:
        """The newest resource version given out."""
        return self._state.store.rv

    def stored(self, storage: str) -> dict[tuple[str, str], Object]:
        """Returns the stored objects of a resource (`pods`, `workspaces.kaito.sh`) by namespace and name.

        For checks of simulations, which look after every write: the dictionary, which is the same until the next write,
        and the objects must not be changed.
        """
        return self._state.store.watch_cache(storage).data

    def on_write(self, listener: Callable[[str, Object, Object | None], None]) -> None:
        """Calls a function after every write with the resource, the object, and its previous state.

        The previous state is None for a new object. The object of a deletion is its last state: the resource does not
        contain it any more.
        """

        def call(storage: str, change: Change) -> None:
            previous = None if change.previous is None else change.previous.data
            listener(storage, change.stored.data, previous)

        self._state.store.listeners.append(call)

    def inject(self, fault: Fault) -> Fault:
        """Adds a fault; see `Fault`."""
        if fault.expire:
            self.expire_history()
        return self.faults.add(fault)

    def deny(self, denial: Denial) -> Denial:
        """Denies a permission; see `Denial`."""
        self._authorizer.denials.append(denial)
        return denial

    def allow(self, *denials: Denial) -> None:
        """Removes these denials, or all of them; unknown ones are ignored."""
        remaining = [denial for denial in self._authorizer.denials if denials and denial not in denials]
        self._authorizer.denials[:] = remaining

    def serve_upgrades(self, protocols: Mapping[str, str]) -> None:
        """Accepts upgrades of connections to pods; the transport in this process serves them after a response 101.

        Args:
            protocols: The subprotocol of each subresource, `exec` and `portforward`.
        """
        self._subresources.upgrades = protocols

    def serve_logs(self, source: LogSource | None) -> None:
        """Lets a kubelet answer requests for pod logs."""
        self._subresources.logs = source

    def expire_history(self) -> None:
        """Drops all watch history: resuming from an earlier resource version gets 410."""
        for _, watch_cache in self._state.store.watch_caches():
            watch_cache.expire(self._state.store.rv)

    def backup(self) -> Backup:
        """Returns a backup of all objects, for `restore`."""
        return self._state.store.backup()

    def restore(self, backup: Backup) -> None:
        """Restores a backup, as after etcd was restored from a snapshot and the API server restarted.

        Open watches end, and a watch from a version that is not reached yet is accepted and sends nothing until it is.

        Raises:
            ValueError: CustomResourceDefinitions were created or deleted since the backup.
        """
        definitions = self._state.store.watch_cache(DEFINITIONS).objects.keys()
        if definitions != backup.objects.get(DEFINITIONS, {}).keys():
            message = "restore: the CustomResourceDefinitions must be those of the backup"
            raise ValueError(message)
        self._state.store.restore(backup)

    @property
    def late_events(self) -> int:
        """Number of events that a fault currently withholds from watchers."""
        return sum(
            len(watcher.held) for _, watch_cache in self._state.store.watch_caches() for watcher in watch_cache.watchers
        )

    def cut_watches(self, kind: str = "") -> int:
        """Ends the open watches of a kind (or all of them) and returns how many there were."""
        count = 0
        for resource in self._state.registry.stored_types():
            if kind in {"", resource.kind}:
                for watcher in list(self._state.store.watch_cache(resource.storage).watchers):
                    watcher.close()
                    count += 1
        return count

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """Serves one request. Raises only `ConnectionDropped`, and only for a fault that drops connections."""
        context = identify(self._state, request)
        if context is None:
            unauthorized = json_response(errors.StatusError(401, "Unauthorized", "Unauthorized").status(), 401)
            unauthorized.headers["date"] = self._state.http_date()
            return unauthorized
        info, target = self._parse_target(request)
        faults = self.faults.for_request(request, info)
        response = await apply_faults(faults)
        if response is None:
            response = await self._answer(request, target, context)
            _apply_stream_faults(response, faults)
            if any(fault.drop_connection for fault in faults):
                raise ConnectionDropped(request.path)
        response.headers["date"] = self._state.http_date()
        self.requests.append(
            RequestRecord(
                request.method,
                request.path,
                request.query,
                response.status,
                request.headers.get("user-agent", ""),
                info.verb,
                info.kind,
                info.name,
                info.namespace,
                info.subresource,
            )
        )
        return response

    def _parse_target(self, request: HttpRequest) -> tuple[RequestInfo, Target | errors.StatusError | None]:
        try:
            target = parse(self._state.registry, request)
        except UnknownPath:
            return RequestInfo(), None
        except errors.StatusError as error:
            return RequestInfo(), error
        return RequestInfo(target.verb, target.resource.kind, target.name, target.namespace, target.subresource), target

    async def _answer(
        self, request: HttpRequest, target: Target | errors.StatusError | None, context: Context
    ) -> HttpResponse:
        try:
            impersonate(request, context, self._authorizer)
            if isinstance(target, errors.StatusError):
                raise target
            response = self._plain(request) if target is None else await self._serve(request, target, context)
        except errors.StatusError as error:
            headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
            response = json_response(error.status(), error.code, headers)
        if isinstance(target, Target) and target.resource.deprecation:
            context.warnings.insert(0, target.resource.deprecation)
        if context.warnings:
            response.headers["warning"] = ", ".join(_warning(text) for text in context.warnings)
        return response

    def _plain(self, request: HttpRequest) -> HttpResponse:
        found = discovery.discover(self._state.registry, request)
        if found is not None:
            return found
        path = request.path.rstrip("/")
        if path in {"/healthz", "/readyz", "/livez"} or path.startswith(("/healthz/", "/readyz/", "/livez/")):
            return text_response("ok")
        if path.startswith("/openapi/"):
            document = self._openapi.serve(path)
            if document is not None:
                return raw_response(document)
        if path == "/version":
            return json_response(VERSION)
        return text_response("404 page not found\n", 404)

    async def _serve(self, request: HttpRequest, target: Target, context: Context) -> HttpResponse:
        state = self._state
        self._authorize(target, request, context)
        await self._prepare(target, request)
        if target.subresource:
            answered = await self._subresources.serve(request, target, context)
            if answered is not None:
                return answered
        if target.resource.verbs == ("create",):
            return review(state, self._authorizer, target, request, context)
        show = negotiate(state, request, lists=target.verb == "list")
        match target.verb:
            case "get":
                return raw_response(reads.get(state, target, request, show))
            case "list":
                return raw_response(reads.list_objects(state, target, request, show))
            case "watch":
                converts = target.resource.converter is not None
                prepare = partial(self._conversions.prepare_possible, target.resource) if converts else None
                stream = open_watch(state, target, request, show, prepare)
                return HttpResponse(200, {"content-type": "application/json", "transfer-encoding": "chunked"}, stream)
            case "create":
                stored = await self._writer.create(target, request, context)
                return raw_response(show.one(target.resource, stored), 201)
            case "update":
                stored, created = await self._writer.update(target, request, context)
                return raw_response(show.one(target.resource, stored), 201 if created else 200)
            case "patch":
                stored, created = await self._writer.patch(target, request, context)
                return raw_response(show.one(target.resource, stored), 201 if created else 200)
            case "delete":
                return await self._delete(target, request, context)
            case _:
                return await self._delete_collection(target, request, context)

    async def _prepare(self, target: Target, request: HttpRequest) -> None:
        """Computes the converted views that the response contains."""
        resource = target.resource
        if resource.converter is None:
            return
        if target.name:
            await self._conversions.prepare(resource, [self._state.store.get(resource.storage, _key(target))])
        elif target.verb == "watch":
            await self._conversions.prepare_watch(resource, self._state.store.watch_cache(resource.storage))
        elif target.verb != "create":
            past = bool(request.param("resourceVersion") or request.param("continue"))
            await self._conversions.prepare_all(resource, self._state.store.watch_cache(resource.storage), history=past)

    def _authorize(self, target: Target, request: HttpRequest, context: Context) -> None:
        self._check_access(attributes_of(target, request), context)
        if target.subresource in UPGRADED and target.verb == "get":
            self._check_access(creation(target), context)
        creates = target.verb == "update" or media_type(request).startswith("application/apply-patch")
        if creates and target.verb in {"update", "patch"} and not target.subresource:
            resource = target.resource
            if self._state.store.get(resource.storage, _key(target)) is None:
                self._check_access(creation(target), context)

    def _check_access(self, attributes: Attributes, context: Context) -> None:
        if not attributes.path:
            resource = (
                f"{attributes.resource}/{attributes.subresource}" if attributes.subresource else attributes.resource
            )
            self.permissions_used.add((context.agent, attributes.verb, attributes.group, resource))
        self._authorizer.check(attributes, context)

    async def _delete(self, target: Target, request: HttpRequest, context: Context) -> HttpResponse:
        show = negotiate(self._state, request, lists=False)
        resource = target.resource
        found = reads.find(self._state, target)
        await self._admission.validate(target, "DELETE", None, view(found, resource), context)
        stored, is_deleted = delete_one(self._state, target, request, context, reads.find(self._state, target))
        if not is_deleted or resource.storage in RETURNED_WHEN_DELETED:
            await self._conversions.prepare(resource, [stored])
            return raw_response(show.one(resource, stored))
        details: Object = {"name": stored.key[1], "kind": resource.plural, "uid": stored.uid}
        if resource.group:
            details["group"] = resource.group
        return json_response(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        )

    async def _delete_collection(self, target: Target, request: HttpRequest, context: Context) -> HttpResponse:
        state, resource = self._state, target.resource
        show = negotiate(state, request, lists=True)
        chosen = selection(resource, target.namespace, request.param("labelSelector"), request.param("fieldSelector"))
        watch_cache = state.store.watch_cache(resource.storage)
        items = [
            watch_cache.objects[key]
            for key in sorted(watch_cache.objects)
            if chosen.matches(watch_cache.objects[key].data)
        ]
        listed = state.store.rv
        for stored in items:
            if watch_cache.objects.get(stored.key) is stored:
                await self._admission.validate(target, "DELETE", None, view(stored, resource), context)
                if watch_cache.objects.get(stored.key) is stored:
                    delete_one(state, target, request, context, stored)
        return raw_response(show.many(resource, items, {"resourceVersion": str(listed)}))

    def _delivery(self, storage: str, change: Change) -> float | None:
        del storage
        return self.faults.delivery(None, change)

    def _create_namespaces(self) -> None:
        from kaito.apiserver.builtin.defaults import fill_builtin_defaults
        from kaito.apiserver.writes.lifecycle import prepare_create

        resource = self._state.registry.find("", "v1", "namespaces")
        if resource is None:
            return
        for name in INITIAL_NAMESPACES:
            data: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            fill_builtin_defaults(data, resource)
            prepare_create(self._state, resource, data)
            self._state.store.create(resource.storage, ("", name), data)


def _key(target: Target) -> tuple[str, str]:
    return target.namespace, target.name


def _warning(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{escaped}"'


def _apply_stream_faults(response: HttpResponse, faults: list[Fault]) -> None:
    for fault in faults:
        if isinstance(response.body, bytes):
            return
        if fault.garbage:
            response.body = _after(b'{"type":"ADDED","obj\n', response.body)
        if fault.cut_after is not None:
            response.body = _cut(response.body, fault.cut_after)


async def _after(line: bytes, stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    try:
        yield line
        async for chunk in stream:
            yield chunk
    finally:
        await _close(stream)


async def _cut(stream: AsyncIterator[bytes], lines: int) -> AsyncGenerator[bytes, None]:
    try:
        while lines > 0:
            chunk = await anext(stream, b"")
            if not chunk:
                return
            parts = chunk.splitlines(keepends=True)
            yield b"".join(parts[:lines])
            lines -= len(parts)
    finally:
        await _close(stream)


async def _close(stream: AsyncIterator[bytes]) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()
