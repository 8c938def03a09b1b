"""The typed, live client: every verb of the Kubernetes API over any transport.

Reconcilers use `Api` (cached reads, fenced writes), which is built on this client; start-up code, webhooks, leases and
tests use it directly. Every call returns the server's response as the kind's model, or raises an `ApiError` or
`TransportError`. A write that may already have happened is repeated only if that is safe (see `sender`).
"""

import copy
import random
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, final

from kaito.runtime.client import codec
from kaito.runtime.client.agent import user_agent as own_agent
from kaito.runtime.client.checks import allowed_namespace, check_field_manager
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
"""Page size of lists (client-go's default)."""

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
        """Creates a client; no request is sent.

        Args:
            transport: Sends the requests; the caller closes it.
            field_manager: The name under which the server records changes in managed fields.
            user_agent: User-Agent of the requests; by default the field manager and this package's version.
            discovery: Finds the resources of kinds that are declared without a plural.
            field_validation: Treatment of unknown fields by the server.
            qps: Client-side limit in requests per second; 0 disables it.
            burst: Requests that may exceed `qps` for a moment.
            observer: Called for every attempt, for metrics.
            rng: Random source of the jitter between attempts.
            tracer: Records a span for every call.
            timeout: Time limit of one call in seconds, including all attempts.
        """
        check_field_manager(field_manager)
        self.field_manager = field_manager
        self.user_agent: str = user_agent or own_agent(field_manager)
        self.transport = transport
        self._discovery = discovery
        self._field_validation = field_validation
        self._timeout = timeout
        self._fence: Callable[[], None] | None = None
        self._dry_run = False
        self._namespace = ""
        self._sender: Sending = Sender(
            transport,
            user_agent=self.user_agent,
            limiter=TokenBucket(qps, max(burst, 1)) if qps > 0 else None,
            observer=observer or NoObserver(),
            rng=rng or random.Random(),  # noqa: S311 -- spreads retries, guards nothing
            tracer=tracer,
        )

    def fenced(self, fence: Callable[[], None]) -> "Client":
        """Returns a copy that calls `fence` immediately before every attempt of a write; an exception stops the
        write."""
        clone = copy.copy(self)
        clone._fence = fence
        return clone

    @property
    def fence(self) -> Callable[[], None] | None:
        """The function of `fenced`."""
        return self._fence

    @property
    def is_dry_run(self) -> bool:
        """Whether writes are not stored."""
        return self._dry_run

    def managed_by(self, field_manager: str) -> "Client":
        """Returns a copy with another field manager.

        Raises:
            ConfigurationError: The name is empty, or longer than the server allows.
        """
        check_field_manager(field_manager)
        if field_manager == self.field_manager:
            return self
        clone = copy.copy(self)
        clone.field_manager = field_manager
        return clone

    def intercepted(self, interceptor: Interceptor) -> "Client":
        """Returns a copy that passes requests through an interceptor; the last one installed is the outermost."""
        clone = copy.copy(self)
        clone._sender = Intercepted(self._sender, interceptor)
        return clone

    def dry_run(self, *, field_validation: FieldValidation | None = None) -> "Client":
        """Returns a copy whose writes are dry runs: the server validates but does not store them.

        `field_validation` overrides that of the client: with `Strict`, the server rejects unknown fields.
        """
        clone = copy.copy(self)
        clone._dry_run = True
        clone._field_validation = field_validation or self._field_validation
        return clone

    def namespaced(self, namespace: str) -> "Client":
        """Returns a copy restricted to one namespace, the default of every call; another namespace is an error.

        Cluster-scoped kinds remain accessible, and `raw` is not restricted.
        """
        clone = copy.copy(self)
        clone._namespace = namespace
        return clone

    # Reads

    async def get(self, kind: type[R], name: str, namespace: str = "") -> R:
        """Gets an object.

        Raises:
            NotFound: It does not exist.
        """
        target = await self.object_target(kind, name, namespace)
        return codec.decode(kind, await self._read(kind, target))

    async def find(self, kind: type[R], name: str, namespace: str = "") -> R | None:
        """Gets an object, or None if it does not exist.

        Raises:
            NotFound: The server does not serve the kind.
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
        """Lists all matching objects in pages; an empty namespace means all namespaces, or that of the client.

        Objects that do not fit their model are skipped, listed in `unreadable` of the result, and logged.

        Raises:
            UnreadableObject: An object does not fit its model, with `unreadable="fail"`.
        """
        selectors = {"labelSelector": label_query(labels), "fieldSelector": field_query(fields)}
        path = await self.collection(kind, namespace)
        try:
            found = await self._list(kind, path, selectors, limit=PAGE_SIZE, skip=unreadable == "skip")
        except Gone:
            # The snapshot of the continue token was compacted: request everything in one page, as client-go's pager
            # does.
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
        """Creates the object; with `generate_name` the server chooses the name.

        If the connection fails before the response arrives, a named object is sent once more: if it exists by then and
        contains every field that was sent, the first attempt has created it.

        Raises:
            AlreadyExists: Another client created it.
            Invalid: Validation or admission rejected it.
        """
        kind = type(obj)
        document = codec.for_create(obj)
        try:
            return await self._post(obj, document, dry_run=dry_run)
        except RequestTimeout:
            raise  # no time is left for a second attempt
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
        """Replaces the object; its resourceVersion is the precondition.

        Raises:
            Conflict: It changed since it was read.
            NotFound: It does not exist.
        """
        return await self._put(obj, "", dry_run=dry_run)

    async def update_status(self, obj: R, *, dry_run: bool = False) -> R:
        """Replaces the status; the server ignores all other fields. Raises the errors of `update`."""
        return await self._put(obj, "status", dry_run=dry_run)

    async def _put(self, obj: R, subresource: str, *, dry_run: bool) -> R:
        target = await self.object_target(
            type(obj), obj.name, obj.namespace, subresource, self._options(dry_run=dry_run)
        )
        body = codec.encode(codec.full_manifest(obj))
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
        """Applies the fields that are set in `obj` (server-side apply) and owns them; creates a missing object.

        Fields that the same manager applied before and that `obj` omits are removed. A UID in `obj` prevents creation.

        Raises:
            Conflict: Another manager owns a field with another value, and `force` is False.
        """
        options = self._options(dry_run=dry_run) | {"fieldManager": field_manager or self.field_manager, "force": force}
        target = await self.object_target(type(obj), obj.name, obj.namespace, subresource, options)
        body = codec.encode(codec.for_apply(obj))
        return await self._write(obj, "PATCH", target, body, RetryOn.ANY_FAILURE, _APPLY, subresource=subresource)

    async def patch(self, target: R, patch: Patch, *, subresource: str = "", dry_run: bool = False) -> R:
        """Patches the object; an empty patch is not sent, and `target` is returned.

        Raises:
            NotFound: It does not exist.
            Conflict: The resourceVersion in the patch is not current.
            Invalid: A `test` of a JSON patch failed, or the result is invalid.
        """
        if patch.is_empty:
            return target
        path = await self.object_target(
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
        """Requests the deletion; False if the object does not exist.

        `if_uid` deletes only the object with the target's UID, not one that was recreated with its name; `if_unchanged`
        deletes only the resourceVersion that was read.

        Raises:
            Conflict: It changed since it was read.
            ConfigurationError: `if_unchanged` with an object that was not read.
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
        """Deletes the object, and returns whether it still exists, for example because of finalizers."""
        uid = target.uid if if_uid else ""
        version = target.metadata.resource_version if if_unchanged else ""
        if if_unchanged and not version:
            raise ConfigurationError(f"{target.kind} {target.key}: if_unchanged= needs an object that was read")
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if self._dry_run:  # in the body: kube-apiserver ignores the query parameters of a DELETE that has a body
            options["dryRun"] = ["All"]
        if uid or version:
            preconditions = {"uid": uid, "resourceVersion": version}
            options["preconditions"] = {name: value for name, value in preconditions.items() if value}
        if propagation is not None:
            options["propagationPolicy"] = propagation
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        path = await self.object_target(type(target), target.name, target.namespace)
        request = self._request("DELETE", path, RetryOn.LOST_RESPONSE, codec.encode(options))
        try:
            reply = await self._sender.send(request)
        except NotFound as error:
            self._invalidate_mapping(type(target), error)
            if not error.is_object:
                raise
            return DeleteResult(existed=False, after_lost_response=error.after_lost_response)
        except Conflict as error:
            # A failed UID precondition means that the requested object no longer exists; other conflicts are raised.
            present = await self.find(type(target), target.name, target.namespace)
            if uid and (present is None or present.uid != uid):
                return DeleteResult(existed=False, after_lost_response=error.after_lost_response)
            raise
        return parse_delete_result(codec.json_object(reply.body, str(request)))

    async def delete_all(
        self, kind: type[Resource], *, namespace: str = "", labels: Labels, fields: Fields = None
    ) -> None:
        """Deletes all matching objects (not atomically). A namespaced kind needs the namespace."""
        path = await self.collection(kind, namespace, writing=True)
        query = {
            "labelSelector": label_query(labels),
            "fieldSelector": field_query(fields),
            "dryRun": "All" if self._dry_run else None,
        }
        request = self._request("DELETE", with_query(path, query), RetryOn.LOST_RESPONSE)
        await self._sender.send(request)

    async def evict(self, pod: Resource, *, grace_seconds: int | None = None) -> bool:
        """Requests the eviction of a pod; False if the pod does not exist.

        Raises:
            TooManyRequests: A PodDisruptionBudget does not allow it now.
        """
        eviction: dict[str, Any] = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": {"preconditions": {"uid": pod.uid}} if pod.uid else {},
        }
        if grace_seconds is not None:
            eviction["deleteOptions"]["gracePeriodSeconds"] = grace_seconds
        path = await self.object_target(type(pod), pod.name, pod.namespace, "eviction", self._options())
        request = self._request("POST", path, RetryOn.THROTTLING, codec.encode(eviction))
        try:
            await self._sender.send(request)
        except NotFound as error:
            missing = await self._classify_not_found(pod, "eviction", error)
            if not missing.is_object:
                raise missing from error
            return False
        return True

    async def scale(self, target: Resource, replicas: int) -> str:
        """Sets the number of replicas through the `scale` subresource; returns the object's new resourceVersion."""
        path = await self.object_target(type(target), target.name, target.namespace, "scale", self._options())
        body = codec.encode({"spec": {"replicas": replicas}})
        request = self._request("PATCH", path, RetryOn.THROTTLING, body, MergePatch.content_type)
        try:
            reply = await self._sender.send(request)
        except NotFound as error:
            raise await self._classify_not_found(target, "scale", error) from error
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
        """Sends any API request with plain JSON: `raw("GET", "/version")`.

        Raises:
            ConfigurationError: A DELETE with a body in a dry run: the server would ignore the `dryRun` parameter.
            KaitoRuntimeError: The errors of the typed verbs.
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
        """Returns the path of a kind's objects, in one namespace or all.

        Raises:
            ConfigurationError: `writing` a namespaced kind without a namespace.
        """
        mapping = await self._rest_mapping(kind)
        namespace = self._namespace_of(kind, mapping, namespace)
        if writing and mapping.namespaced and not namespace:
            message = f"{kind.kind} is namespaced: a namespace is required"
            raise ConfigurationError(message)
        return resource_path(kind.api_version, mapping.plural, namespace=namespace)

    async def object_target(
        self, kind: type[Resource], name: str, namespace: str, subresource: str = "", query: Query | None = None
    ) -> str:
        """Returns the path of an object or of its subresource, with a query.

        Raises:
            ConfigurationError: The name is missing, or the namespace of a namespaced kind.
        """
        mapping = await self._rest_mapping(kind)
        if not name:
            message = f"{kind.kind}: a name is required"
            raise ConfigurationError(message)
        namespace = self._namespace_of(kind, mapping, namespace)
        if mapping.namespaced and not namespace:
            message = f"{kind.kind} {name!r} is namespaced: a namespace is required"
            raise ConfigurationError(message)
        path = resource_path(
            kind.api_version,
            mapping.plural,
            namespace=namespace,
            name=name,
            subresource=subresource,
        )
        return with_query(path, query or {})

    def _namespace_of(self, kind: type[Resource], mapping: RestMapping, namespace: str) -> str:
        if not mapping.namespaced:
            return ""
        return allowed_namespace(kind, namespace, self._namespace) if self._namespace else namespace

    async def _rest_mapping(self, kind: type[Resource]) -> RestMapping:
        if kind.plural:
            return RestMapping(kind.plural, kind.namespaced)
        if self._discovery is None:
            message = f"{kind.kind} has no plural: declare it with plural=, or pass discovery= to the client"
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
            self._invalidate_mapping(kind, error)
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
        """Returns a request that changes state, with the fence as its guard."""
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
            self._invalidate_mapping(type(obj), error)
            if not subresource:
                raise
            raise await self._classify_not_found(obj, subresource, error) from error
        return codec.decode(type(obj), reply.body)

    async def _classify_not_found(self, obj: Resource, subresource: str, error: NotFound) -> NotFound:
        """Classifies the 404 of a subresource: the object does not exist, or the kind has no such subresource.
        kube-apiserver returns the same Status for both if the kind is a custom resource, so the object is read.
        """
        if not error.is_object:
            return error
        kind = type(obj)
        target = await self.object_target(kind, obj.name, obj.namespace)
        try:
            body = await self._read(kind, target)
        except NotFound as missing:
            return missing
        except ApiError as refused:
            seen = f"may exist ({refused.message})"
        else:
            metadata: Mapping[str, Any] = codec.json_object(body, f"GET {target}").get("metadata") or {}
            if obj.uid and metadata.get("uid") != obj.uid:
                return error  # deleted, and another object was created with its name
            seen = "exists"
        message = (
            f"{kind.kind} {obj.key} {seen}, but {kind.plural or kind.kind} of {kind.api_version} have no "
            f"{subresource!r} subresource: declare spec.versions[].subresources.{subresource} in its definition"
        )
        return NotFound(message, code=404, reason="NotFound", request=error.request)

    def _invalidate_mapping(self, kind: type[Resource], error: NotFound) -> None:
        """Invalidate the discovered kind after a 404 without an object: the resource is not served any more."""
        if not kind.plural and self._discovery is not None and not error.is_object:
            self._discovery.invalidate(kind.gvk())
