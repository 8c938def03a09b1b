"""The typed, live client: every verb of the Kubernetes API over any transport.

Reconcilers use `Api` (cached reads, fenced writes), which is built on this; start-up code, webhooks, leases and tests
use it directly. Every call either returns what the server answered, as the kind's model, or raises an `ApiError` or
`TransportError`. Writes are never repeated when they may have happened already (see `sender`).
"""

import copy
import random
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, final

from kaito.runtime.client import codec
from kaito.runtime.client.agent import user_agent as own_agent
from kaito.runtime.client.codec import ResourceList
from kaito.runtime.client.delete_result import DeleteResult, parse_delete_result
from kaito.runtime.client.intercept import Intercepted, Interceptor, Sending
from kaito.runtime.client.observe import NoObserver, RequestObserver
from kaito.runtime.client.patch import MergePatch, Patch, contains
from kaito.runtime.client.path import Query, field_query, label_query, resource_path, with_query
from kaito.runtime.client.rest_mapping import Discovery, RestMapping
from kaito.runtime.client.sender import ApiRequest, RetryOn, Sender
from kaito.runtime.client.transport import REQUEST_SECONDS, Transport
from kaito.runtime.client.unreadable import Unreadable, log_skipped
from kaito.runtime.client.write_context import FIELD_MANAGER_LENGTH
from kaito.runtime.errors import (
    AlreadyExists,
    ApiError,
    ConfigurationError,
    Conflict,
    Gone,
    NotFound,
    RequestTimeout,
    TransportError,
)
from kaito.runtime.meta import LabelSelector, Resource
from kaito.runtime.token_bucket import TokenBucket
from kaito.runtime.tracing import NO_TRACER, Tracer

R = TypeVar("R", bound=Resource)

PAGE_SIZE = 500
"""Objects asked for in one page of a list, client-go's figure."""

Propagation = Literal["Background", "Foreground", "Orphan"]
FieldValidation = Literal["Ignore", "Warn", "Strict"]
Labels = LabelSelector | Mapping[str, str] | str | None
Fields = Mapping[str, str] | str | None

_APPLY = "application/apply-patch+yaml"  # JSON is YAML


@final
class Client:
    """Reads and writes objects of any kind, live."""

    def __init__(
        self,
        transport: Transport,
        *,
        field_manager: str,
        user_agent: str = "",
        discovery: Discovery | None = None,
        field_validation: FieldValidation = "Warn",
        qps: float = 0.0,
        burst: int = 0,
        observer: RequestObserver | None = None,
        rng: random.Random | None = None,
        tracer: Tracer = NO_TRACER,
        timeout: float = REQUEST_SECONDS,
    ) -> None:
        """Prepare a client; nothing is sent.

        Args:
            transport: where requests go; the caller closes it.
            field_manager: the name under which the server records our changes.
            user_agent: as the server logs it; default the field manager and this package's version.
            discovery: finds kinds declared without a plural.
            field_validation: what the server does about fields it does not know.
            qps: client-side limit in requests a second; 0 or less is none.
            burst: requests let through at once before `qps` counts.
            observer: told about every attempt, for metrics.
            rng: randomness of the pauses between attempts.
            tracer: makes a span of every call.
            timeout: seconds of one call, all its attempts together.
        """
        check_field_manager(field_manager)
        self.field_manager = field_manager
        self.transport = transport
        self._discovery = discovery
        self._field_validation = field_validation
        self._timeout = timeout
        self._fence: Callable[[], None] | None = None
        self._dry_run = False
        self._namespace = ""
        self._sender: Sending = Sender(
            transport,
            user_agent=user_agent or own_agent(field_manager),
            limiter=TokenBucket(qps, max(burst, 1)) if qps > 0 else None,
            observer=observer or NoObserver(),
            rng=rng or random.Random(),  # noqa: S311 -- spreads retries, guards nothing
            tracer=tracer,
        )

    def fenced(self, fence: Callable[[], None]) -> "Client":
        """The same client, calling `fence` right before every attempt of a write; what it raises stops the write."""
        clone = copy.copy(self)
        clone._fence = fence
        return clone

    def managed_by(self, field_manager: str) -> "Client":
        """The same client, whose changes the server records under another name.

        Raises:
            ConfigurationError: the name is empty, or longer than the server allows.
        """
        check_field_manager(field_manager)
        if field_manager == self.field_manager:
            return self
        clone = copy.copy(self)
        clone.field_manager = field_manager
        return clone

    def intercepted(self, interceptor: Interceptor) -> "Client":
        """The same client, whose requests pass the interceptor first; the one installed last sees them first."""
        clone = copy.copy(self)
        clone._sender = Intercepted(self._sender, interceptor)
        return clone

    def dry_run(self) -> "Client":
        """The same client, whose writes the server checks and answers as always, and does not keep."""
        clone = copy.copy(self)
        clone._dry_run = True
        return clone

    def namespaced(self, namespace: str) -> "Client":
        """The same client within one namespace: it is the default of every call, and any other is refused.

        Cluster-scoped kinds stay reachable, and `raw` goes wherever its path says.
        """
        clone = copy.copy(self)
        clone._namespace = namespace
        return clone

    # Reads

    async def get(self, kind: type[R], name: str, namespace: str = "") -> R:
        """The object.

        Raises:
            NotFound: there is none.
        """
        target = await self._object_target(kind, name, namespace)
        return codec.decode(kind, await self._read(kind, target))

    async def find(self, kind: type[R], name: str, namespace: str = "") -> R | None:
        """The object, or None when there is none.

        Raises:
            NotFound: the server does not serve the kind at all.
        """
        try:
            return await self.get(kind, name, namespace)
        except NotFound as error:
            if not error.is_object:
                raise
            return None

    async def list(
        self,
        kind: type[R],
        *,
        namespace: str = "",
        labels: Labels = None,
        fields: Fields = None,
        unreadable: Unreadable = "skip",
    ) -> ResourceList[R]:
        """All objects that match, read in pages; an empty namespace means all of them, or that of the client.

        Objects that do not fit their model are left out, named by the answer's `unreadable` and in the log.

        Raises:
            UnreadableObject: an object does not fit its model, with `unreadable="fail"`.
        """
        selectors = {"labelSelector": label_query(labels), "fieldSelector": field_query(fields)}
        path = await self.collection(kind, namespace)
        try:
            found = await self._list(kind, path, selectors, limit=PAGE_SIZE, skip=unreadable == "skip")
        except Gone:
            # The snapshot behind the page token was compacted away: read all in one answer, as client-go's pager does.
            found = await self._list(kind, path, selectors, limit=None, skip=unreadable == "skip")
        log_skipped(found.unreadable)
        return found

    async def _list(
        self, kind: type[R], path: str, selectors: Query, *, limit: int | None, skip: bool
    ) -> ResourceList[R]:
        found: ResourceList[R] = ResourceList()
        token: str | None = None
        while True:
            target = with_query(path, {**selectors, "limit": limit, "continue": token})
            page = codec.page(await self._read(kind, target), f"GET {target}")
            await codec.add_items(found, kind, page, skip=skip)
            found.resource_version = page.metadata.resource_version
            token = page.metadata.continue_
            if not token:
                return found

    # Writes

    async def create(self, obj: R, *, dry_run: bool = False) -> R:
        """Create the object; with `generate_name` the server invents the name.

        When the connection breaks before the answer, an object with a fixed name is sent once more: if it then exists
        and says all that was sent, it is ours.

        Raises:
            AlreadyExists: somebody else created it.
            Invalid: validation or admission refused it.
        """
        kind = type(obj)
        document = codec.for_create(obj)
        try:
            return await self._post(obj, document, dry_run=dry_run)
        except RequestTimeout:
            raise  # the call's time is used up
        except TransportError:
            if not obj.name:
                raise
        try:
            return await self._post(obj, document, dry_run=dry_run)
        except AlreadyExists as error:
            error.after_lost_response = True
            existing = await self.get(kind, obj.name, obj.namespace)
            if contains(existing.to_dict(), document):
                return existing
            raise

    async def _post(self, obj: R, document: Mapping[str, Any], *, dry_run: bool) -> R:
        path = await self.collection(type(obj), obj.namespace, writing=True)
        target = with_query(path, self._options(dry_run=dry_run))
        return await self._write(obj, "POST", target, codec.encode(document), RetryOn.THROTTLING)

    async def update(self, obj: R, *, dry_run: bool = False) -> R:
        """Replace the object; its resourceVersion guards against changes made since it was read.

        Raises:
            Conflict: somebody changed it meanwhile.
            NotFound: it is gone.
        """
        return await self._put(obj, "", dry_run=dry_run)

    async def update_status(self, obj: R, *, dry_run: bool = False) -> R:
        """Replace the status; everything else is ignored by the server. Raises as `update`."""
        return await self._put(obj, "status", dry_run=dry_run)

    async def _put(self, obj: R, subresource: str, *, dry_run: bool) -> R:
        target = await self._object_target(
            type(obj), obj.name, obj.namespace, subresource, self._options(dry_run=dry_run)
        )
        body = codec.encode(codec.whole(obj))
        return await self._write(obj, "PUT", target, body, RetryOn.LOST_RESPONSE, subresource=subresource)

    async def apply(
        self,
        obj: R,
        *,
        force: bool = True,
        field_manager: str | None = None,
        subresource: str = "",
        dry_run: bool = False,
    ) -> R:
        """Make the fields set in `obj` true, owning them (server-side apply); creates the object when missing.

        Fields applied before by the same manager and absent now are removed. A UID set in `obj` forbids creation.

        Raises:
            Conflict: without `force`, another manager owns a field and wants another value.
        """
        options = self._options(dry_run=dry_run) | {"fieldManager": field_manager or self.field_manager, "force": force}
        target = await self._object_target(type(obj), obj.name, obj.namespace, subresource, options)
        body = codec.encode(codec.for_apply(obj))
        return await self._write(obj, "PATCH", target, body, RetryOn.ANY_FAILURE, _APPLY, subresource=subresource)

    async def patch(self, target: R, patch: Patch, *, subresource: str = "", dry_run: bool = False) -> R:
        """Change the object by a patch; an empty patch is not sent and returns `target` as it is.

        Raises:
            NotFound: it is gone.
            Conflict: the patch names a resourceVersion that is not current.
            Invalid: a `test` of a JSON patch failed, or the result is not valid.
        """
        if patch.is_empty:
            return target
        path = await self._object_target(
            type(target), target.name, target.namespace, subresource, self._options(dry_run=dry_run)
        )
        body = codec.encode(patch.document)
        return await self._write(
            target, "PATCH", path, body, RetryOn.THROTTLING, patch.content_type, subresource=subresource
        )

    async def delete(
        self,
        target: Resource,
        *,
        if_uid: bool = True,
        if_unchanged: bool = False,
        propagation: Propagation | None = None,
        grace_seconds: int | None = None,
    ) -> bool:
        """Ask for deletion; False when it was gone already.

        `if_uid` (when the target has a UID) deletes only that very object, never one recreated under its name;
        `if_unchanged` only as it was read.

        Raises:
            Conflict: it changed since it was read.
            ConfigurationError: `if_unchanged` of an object that was never read.
        """
        result = await self.delete_with_result(
            target, if_uid=if_uid, if_unchanged=if_unchanged, propagation=propagation, grace_seconds=grace_seconds
        )
        return result.existed

    async def delete_with_result(
        self,
        target: Resource,
        *,
        if_uid: bool = True,
        if_unchanged: bool = False,
        propagation: Propagation | None = None,
        grace_seconds: int | None = None,
    ) -> DeleteResult:
        """`delete`, telling also whether something is left."""
        uid = target.uid if if_uid else ""
        version = target.metadata.resource_version if if_unchanged else ""
        if if_unchanged and not version:
            raise ConfigurationError(f"{target.kind} {target.key}: if_unchanged= needs an object that was read")
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if self._dry_run:  # said here, because a body makes the server overlook the query
            options["dryRun"] = ["All"]
        if uid or version:
            said = {"uid": uid, "resourceVersion": version}
            options["preconditions"] = {name: value for name, value in said.items() if value}
        if propagation is not None:
            options["propagationPolicy"] = propagation
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        path = await self._object_target(type(target), target.name, target.namespace)
        request = self._request("DELETE", path, RetryOn.LOST_RESPONSE, codec.encode(options))
        try:
            reply = await self._sender.send(request)
        except NotFound as error:
            self._doubt(type(target), error)
            if not error.is_object:
                raise
            return DeleteResult(existed=False, after_lost_response=error.after_lost_response)
        except Conflict as error:
            # A failed precondition means the object we meant is gone; any other conflict is the caller's to see.
            present = await self.find(type(target), target.name, target.namespace)
            if uid and (present is None or present.uid != uid):
                return DeleteResult(existed=False, after_lost_response=error.after_lost_response)
            raise
        return parse_delete_result(codec.json_object(reply.body, str(request)))

    async def delete_all(
        self, kind: type[Resource], *, namespace: str = "", labels: Labels, fields: Fields = None
    ) -> None:
        """Delete every object that matches (not atomic). A namespaced kind needs the namespace."""
        path = await self.collection(kind, namespace, writing=True)
        query = {
            "labelSelector": label_query(labels),
            "fieldSelector": field_query(fields),
            "dryRun": "All" if self._dry_run else None,
        }
        request = self._request("DELETE", with_query(path, query), RetryOn.LOST_RESPONSE)
        await self._sender.send(request)

    async def evict(self, pod: Resource, *, grace_seconds: int | None = None) -> bool:
        """Ask for a pod's eviction; False when it was gone already.

        Raises:
            TooManyRequests: a disruption budget forbids it now.
        """
        eviction: dict[str, Any] = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": {"preconditions": {"uid": pod.uid}} if pod.uid else {},
        }
        if grace_seconds is not None:
            eviction["deleteOptions"]["gracePeriodSeconds"] = grace_seconds
        path = await self._object_target(type(pod), pod.name, pod.namespace, "eviction", self._options())
        request = self._request("POST", path, RetryOn.THROTTLING, codec.encode(eviction))
        try:
            await self._sender.send(request)
        except NotFound as error:
            missing = await self._missing(pod, "eviction", error)
            if not missing.is_object:
                raise missing from error
            return False
        return True

    async def scale(self, target: Resource, replicas: int) -> str:
        """Set the number of replicas through the `scale` subresource; the object's new resourceVersion."""
        path = await self._object_target(type(target), target.name, target.namespace, "scale", self._options())
        body = codec.encode({"spec": {"replicas": replicas}})
        request = self._request("PATCH", path, RetryOn.THROTTLING, body, MergePatch.content_type)
        try:
            reply = await self._sender.send(request)
        except NotFound as error:
            raise await self._missing(target, "scale", error) from error
        metadata: Mapping[str, Any] = codec.json_object(reply.body, str(request)).get("metadata") or {}
        return str(metadata.get("resourceVersion", ""))

    # Anything else

    async def raw(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """Any request of the API as plain JSON: `raw("GET", "/version")`. Raises as the typed verbs do, and:

        Raises:
            ConfigurationError: a DELETE with a body in a dry run, which only the body could say.
        """
        verb = method.upper()
        if self._dry_run and verb not in {"GET", "HEAD"}:
            if verb == "DELETE" and body is not None:
                raise ConfigurationError("in a dry run a raw DELETE takes its options from the query, not from a body")
            query = {**(query or {}), "dryRun": "All"}
        if verb in {"GET", "HEAD"}:
            request = ApiRequest(verb, with_query(path, query or {}), RetryOn.ANY_FAILURE, timeout=self._timeout)
        else:
            document = None if body is None else codec.encode(body)
            request = self._request(verb, with_query(path, query or {}), RetryOn.THROTTLING, document, content_type)
        reply = await self._sender.send(request)
        return codec.json_object(reply.body, str(request)) if reply.body else {}

    async def collection(self, kind: type[Resource], namespace: str = "", *, writing: bool = False) -> str:
        """The path of a kind's objects, of one namespace or all.

        Raises:
            ConfigurationError: `writing` a namespaced kind without saying where.
        """
        mapping = await self._rest_mapping(kind)
        namespace = self._place(kind, mapping, namespace)
        if writing and mapping.namespaced and not namespace:
            message = f"{kind.kind} lives in a namespace, and none is given"
            raise ConfigurationError(message)
        return resource_path(kind.api_version, mapping.plural, namespace=namespace)

    async def _object_target(
        self, kind: type[Resource], name: str, namespace: str, subresource: str = "", query: Query | None = None
    ) -> str:
        mapping = await self._rest_mapping(kind)
        if not name:
            message = f"{kind.kind}: a name is needed"
            raise ConfigurationError(message)
        namespace = self._place(kind, mapping, namespace)
        if mapping.namespaced and not namespace:
            message = f"{kind.kind} {name!r} lives in a namespace, and none is given"
            raise ConfigurationError(message)
        path = resource_path(
            kind.api_version,
            mapping.plural,
            namespace=namespace,
            name=name,
            subresource=subresource,
        )
        return with_query(path, query or {})

    def _place(self, kind: type[Resource], mapping: RestMapping, namespace: str) -> str:
        if not mapping.namespaced:
            return ""
        return placed(kind, namespace, self._namespace) if self._namespace else namespace

    async def _rest_mapping(self, kind: type[Resource]) -> RestMapping:
        if kind.plural:
            return RestMapping(kind.plural, kind.namespaced)
        if self._discovery is None:
            message = f"{kind.kind} has no plural: declare it with plural=, or give the client a discovery"
            raise ConfigurationError(message)
        return await self._discovery.rest_mapping(kind.gvk())

    def _options(self, *, dry_run: bool = False) -> dict[str, str | int | bool | None]:
        return {
            "fieldManager": self.field_manager,
            "fieldValidation": self._field_validation,
            "dryRun": "All" if dry_run or self._dry_run else None,
        }

    async def _read(self, kind: type[Resource], target: str) -> bytes:
        try:
            reply = await self._sender.send(ApiRequest("GET", target, RetryOn.ANY_FAILURE, timeout=self._timeout))
        except NotFound as error:
            self._doubt(kind, error)
            raise
        return reply.body

    def _request(
        self,
        method: str,
        target: str,
        retry_on: RetryOn,
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> ApiRequest:
        """A request that changes something, and so is fenced."""
        return ApiRequest(
            method, target, retry_on, body=body, content_type=content_type, timeout=self._timeout, guard=self._fence
        )

    async def _write(
        self,
        obj: R,
        method: str,
        target: str,
        body: bytes,
        retry_on: RetryOn,
        content_type: str = "application/json",
        *,
        subresource: str = "",
    ) -> R:
        request = self._request(method, target, retry_on, body, content_type)
        try:
            reply = await self._sender.send(request)
        except NotFound as error:
            self._doubt(type(obj), error)
            if not subresource:
                raise
            raise await self._missing(obj, subresource, error) from error
        return codec.decode(type(obj), reply.body)

    async def _missing(self, obj: Resource, subresource: str, error: NotFound) -> NotFound:
        """Classifies the 404 of a subresource: the object is gone, or it exists and has no such subresource.

        kube-apiserver answers both alike for custom kinds, so the object is asked for.
        """
        if not error.is_object:
            return error
        kind = type(obj)
        target = await self._object_target(kind, obj.name, obj.namespace)
        try:
            body = await self._read(kind, target)
        except NotFound as gone:
            return gone
        except ApiError as refused:
            seen = f"may exist ({refused.message})"
        else:
            metadata: Mapping[str, Any] = codec.json_object(body, f"GET {target}").get("metadata") or {}
            if obj.uid and metadata.get("uid") != obj.uid:
                return error  # gone; another object has its name by now
            seen = "exists"
        message = (
            f"{kind.kind} {obj.key} {seen}, but {kind.plural or kind.kind} of {kind.api_version} have no "
            f"{subresource!r} subresource: declare spec.versions[].subresources.{subresource} in its definition"
        )
        return NotFound(message, code=404, reason="NotFound", request=error.request)

    def _doubt(self, kind: type[Resource], error: NotFound) -> None:
        """A 404 that names no object means the resource itself is not served any more: discover it again."""
        if not kind.plural and self._discovery is not None and not error.is_object:
            self._discovery.invalidate(kind.gvk())


def check_field_manager(name: str) -> None:
    """Refuse a name that the API server would refuse.

    Raises:
        ConfigurationError: it is empty, too long, or has characters that cannot be printed.
    """
    if not name:
        message = "a client needs a field manager: the name under which the server records its changes"
        raise ConfigurationError(message)
    if len(name) > FIELD_MANAGER_LENGTH or not name.isprintable():
        raise ConfigurationError(f"field manager {name!r}: at most {FIELD_MANAGER_LENGTH} printable characters")


def placed(kind: type[Resource], namespace: str, home: str) -> str:
    """The namespace of a call of something that is bound to `home`.

    Raises:
        ConfigurationError: the call names another one.
    """
    if namespace not in {"", home}:
        raise ConfigurationError(f"{kind.kind} in namespace {namespace!r}: this client is bound to {home!r}")
    return home
