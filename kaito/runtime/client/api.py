"""API access of reconcilers: cached reads with read-your-writes consistency, and fenced writes.

The manager creates one `Api`, and every `Request` refers to it. Kinds that the cache declares are read from the cache,
kinds listed in `live` from the server; reads of other kinds fail, so that no read starts a cluster-wide watch
unintentionally. Every write checks the fence (that this process still holds the lease), is sent under the controller's
field manager, and is reported to the cache so that later reads include it.
"""

import asyncio
import copy
import random
from builtins import list as List  # noqa: N812 -- `list` is a method here
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar, final

from kaito.runtime.client import codec
from kaito.runtime.client.applied import AppliedObjects, digest_of, with_digest
from kaito.runtime.client.checks import allowed_namespace
from kaito.runtime.client.client import Client, Fields, FieldValidation, Labels, Propagation
from kaito.runtime.client.codec import ResourceList
from kaito.runtime.client.consistency import Aggregate, Consistency, Derivation, IndexKey, Reader, Scope
from kaito.runtime.client.decoding import DECODED_AT_ONCE, decoded, remembered
from kaito.runtime.client.events import EventSink
from kaito.runtime.client.intercept import Interceptor
from kaito.runtime.client.managed_fields import managed_fields_of, remove_former_managers
from kaito.runtime.client.patch import MergePatch, Patch, contains
from kaito.runtime.client.path import label_query, selector_of
from kaito.runtime.client.status import StatusScope
from kaito.runtime.client.status_writer import StatusWriter
from kaito.runtime.client.unreadable import Unreadable, skips_unreadable
from kaito.runtime.client.write_context import (
    ContentionTracker,
    FieldContention,
    current_write_context,
    field_manager_of,
)
from kaito.runtime.clock import Clock, SystemClock, monotonic
from kaito.runtime.errors import (
    CacheNotSynced,
    ConfigurationError,
    NotFound,
    NotLeader,
    UndeclaredKind,
    UnreadableObject,
    api_error,
)
from kaito.runtime.meta import LabelSelector, ObjectKey, Resource
from kaito.runtime.meta.model import is_partial
from kaito.runtime.ownership import check_controller, controlled_by, is_owned_by, same_owner

R = TypeVar("R", bound=Resource)
T = TypeVar("T")


@final
class Api:
    """Reads and writes of reconcilers."""

    def __init__(
        self,
        client: Client,
        reader: Reader,
        *,
        live: Collection[type[Resource]] = (),
        fence: Callable[[], None] | None = None,
        former_field_managers: Sequence[str] = (),
        events: EventSink | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Combines a client and a cache.

        Args:
            client: Sends the requests. Writes during a reconcile have the field manager `<its field
                manager>/<controller>`, other writes its field manager.
            reader: The cache.
            live: Kinds that every read requests from the server.
            fence: Called before every attempt of every write; raises `NotLeader`.
            former_field_managers: Field managers under which earlier versions applied the objects. The first apply of
                an object ends their ownership, so that fields which are not applied any more are removed. The client's
                own field manager is always one of them.
            events: Receives the events of `event`; by default they are dropped.
            clock: Source of the timestamps of conditions.
            rng: Random source of the jitter between attempts.
        """
        self.client: Client = client if fence is None else client.fenced(fence)
        self._fence = fence
        self._reader = reader
        self._live = frozenset(kind.gvk() for kind in live)
        self._events = events
        self._clock: Clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311 -- spreads retries, guards nothing
        self._applied = AppliedObjects()
        self._contentions = ContentionTracker()
        self._former = (client.field_manager, *former_field_managers)
        self._dry_run = False
        self._namespace = ""

    def intercepted(self, interceptor: Interceptor) -> "Api":
        """Returns a copy that passes every request (all writes, and live reads) through an interceptor."""
        clone = copy.copy(self)
        clone.client = self.client.intercepted(interceptor)
        return clone

    def dry_run(self, *, field_validation: FieldValidation | None = None) -> "Api":
        """Returns a copy whose writes are dry runs: the server validates but does not store them; events are dropped.

        `field_validation` overrides that of the client: with `Strict`, the server rejects unknown fields.
        """
        clone = copy.copy(self)
        clone.client = self.client.dry_run(field_validation=field_validation)
        clone._dry_run = True
        clone._applied = AppliedObjects()
        clone._contentions = ContentionTracker()
        clone._events = None
        return clone

    def namespaced(self, namespace: str) -> "Api":
        """Returns a copy restricted to one namespace, the default of every call; another namespace is an error.

        Cluster-scoped kinds remain accessible.
        """
        clone = copy.copy(self)
        clone.client = self.client.namespaced(namespace)
        clone._namespace = namespace
        return clone

    def _writer(self, field_manager: str = "") -> Client:
        """Returns the client with the field manager of the call, else of the running controller, else its own."""
        run = current_write_context()
        if not field_manager and run is None:
            return self.client
        owner = self.client.field_manager
        return self.client.managed_by(field_manager or field_manager_of(owner, run.controller if run else ""))

    def fence(self) -> None:
        """Raises unless this process certainly holds the lease: the check that precedes every write of this `Api`.

        For writes to systems other than Kubernetes, such as a cloud. Call it immediately before the request is sent,
        not at the start of a reconcile: a process that was suspended and resumes must not send a request that it
        prepared earlier. Returns at once if the manager has no lease.

        Raises:
            NotLeader: The lease is not held, or could expire before the write arrives.
        """
        if self._fence is not None:
            self._fence()

    # Reads

    async def get(self, kind: type[R], name: str, namespace: str = "", *, consistency: Consistency = "own-writes") -> R:
        """Gets an object.

        Raises:
            NotFound: It does not exist.
            UndeclaredKind: The kind is neither cached nor listed in `live`.
            CacheNotSynced: The first list of the kind is not complete.
        """
        obj = await self.find(kind, name, namespace, consistency=consistency)
        if obj is None:
            key = ObjectKey(namespace, name)
            raise api_error(
                404,
                {
                    "message": f'{kind.plural} "{name}" not found',
                    "reason": "NotFound",
                    "details": {"name": name, "group": kind.group(), "kind": kind.plural},
                },
                request=f"get {kind.kind} {key}",
            )
        return obj

    async def find(
        self, kind: type[R], name: str, namespace: str = "", *, consistency: Consistency = "own-writes"
    ) -> R | None:
        """Gets an object, or None if it does not exist. Raises the errors of `get`, except NotFound."""
        if self._namespace:
            namespace = self._namespace_of(kind, namespace)
        if self._reads_live(kind, consistency):
            return await self.client.find(kind, name, namespace)
        key = _key(kind, namespace, name)
        if consistency == "own-writes" and not await self._reader.caught_up(kind, key):
            began = monotonic()
            found = await self.client.find(kind, name, namespace)
            self._reader.record_live_read(kind, key, began, found)
            return found
        return self._reader.get(kind, key)

    async def list(
        self,
        kind: type[R],
        *,
        namespace: str = "",
        labels: LabelSelector | Mapping[str, str] | str | None = None,
        owned_by: Resource | None = None,
        index: IndexKey[R] | None = None,
        consistency: Consistency = "own-writes",
        unreadable: Unreadable | None = None,
    ) -> ResourceList[R]:
        """Lists the objects that match all arguments, ordered by namespace and name, with their `resource_version`.

        `owned_by` compares UIDs: dependents of an earlier object with the same name are not listed.

        Objects that do not fit their model are skipped, so that one of them does not fail every list of the kind; they
        are listed in `unreadable` of the result and logged. Lists by `owned_by` or `index` fail instead, because
        reconcilers create what such a list does not contain. `unreadable` overrides this; pass `unreadable="fail"`
        where the absence of an object leads to a creation or deletion. Raises the errors of `get`, and:

        Raises:
            UnreadableObject: An object does not fit its model, in lists that do not skip it.
        """
        if owned_by is not None and not owned_by.uid:
            message = f"{owned_by.kind} {owned_by.key} has no uid: create it before it owns other objects"
            raise ConfigurationError(message)
        selector = selector_of(labels)
        namespace = self._namespace_of(kind, namespace)
        owner = "" if owned_by is None else owned_by.uid
        skip = skips_unreadable(unreadable, narrow=bool(owner) or index is not None)
        if not self._reads_live(kind, consistency) and (
            consistency == "cached"
            or await self._reader.caught_up(kind, namespace=namespace, labels=selector, owner=owner, index=index)
        ):
            chosen = self._reader.select(
                kind, namespace=namespace, labels=selector, owner=owner, index=index, with_unfiled=skip
            )
            return await decoded(chosen, self._reader.version(kind, namespace), skip=skip)
        # A fallback must return what the cached list would: it uses the selectors of the informers. An explicit live
        # read does not.
        fallback = consistency != "live" and self._reader.declares(kind)
        found: list[R] = []
        skipped: list[UnreadableObject] = []
        version = ""
        for scope in self._reader.scopes(kind, namespace) if fallback else [Scope(namespace)]:
            wanted = ",".join(filter(None, (scope.labels, label_query(selector))))
            began = monotonic()
            part = await self.client.list(kind, namespace=scope.namespace, labels=wanted, fields=scope.fields)
            found += part
            skipped += [error for error in part.unreadable if not owner or owner in error.owners]
            version = part.resource_version
            if fallback:
                self._reader.record_live_list(kind, scope.namespace, began, version)
        if skipped and not skip:
            raise skipped[0]
        matching = [
            obj
            for obj in found
            if (owned_by is None or is_owned_by(obj, owned_by)) and (index is None or index.matches(obj))
        ]
        answer = ResourceList(sorted(matching, key=lambda obj: obj.key), resource_version=version)
        answer.unreadable = skipped
        return answer

    async def values(
        self, derived: Derivation[R, T], *, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> List[T]:
        """Gets the values of a `Derived`, of the objects that `list` returns and in its order. Raises as `list`."""
        kind, selector = derived.kind, selector_of(labels)
        if not self._reads_live(kind, "own-writes"):
            namespace = self._namespace_of(kind, namespace)
            if await self._reader.caught_up(kind, namespace=namespace, labels=selector):
                return await remembered(derived, self._reader.select(kind, namespace=namespace, labels=selector))
        return [derived.compute(obj) for obj in await self.list(kind, namespace=namespace, labels=selector)]

    async def update_aggregate(
        self, aggregate: Aggregate[Any], *, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> bool:
        """Passes the cached objects that have changed since the last call to an aggregate, of all namespaces.

        The arguments are those of `list`: afterwards, the aggregate contains the own writes that such a list would
        contain. False if the cache does not contain them in time, or cannot: the caller then lists instead. One
        aggregate may be updated by several tasks. Raises the errors of `get`.
        """
        kind = aggregate.kind
        if self._reads_live(kind, "own-writes"):
            return False
        namespace = self._namespace_of(kind, namespace)
        if not await self._reader.caught_up(kind, namespace=namespace, labels=selector_of(labels)):
            return False
        while self._reader.pass_changes(aggregate, limit=DECODED_AT_ONCE):  # noqa: ASYNC110 -- waits for nothing
            await asyncio.sleep(0)
        return True

    def require(self, objects: Iterable[Resource]) -> bool:
        """Lets later cached reads return these objects, which were read from the server, at least in their versions.

        Such a read waits for the watch, as for own writes. False if a kind is not cached or has no comparable versions.
        """
        return all(self._reader.require(type(obj), obj.key, obj.metadata.resource_version) for obj in objects)

    def _reads_live(self, kind: type[Resource], consistency: Consistency) -> bool:
        declared = self._reader.declares(kind)
        if not declared and kind.gvk() not in self._live:
            raise UndeclaredKind(kind.kind)
        return consistency == "live" or not declared

    # Writes

    async def create(self, obj: R, *, owner: Resource | None = None, dry_run: bool = False) -> R:
        """Creates the object. For values that are generated once, such as a password; use `ensure` for everything else.

        Args:
            obj: The object.
            owner: Becomes the controller; its namespace is the default of `obj`.
            dry_run: The server validates and answers without storing.

        Raises:
            ConfigurationError: The owner is in another namespace.
            AlreadyExists: An object with the name exists. Other errors are those of `Client.create`.
        """
        obj = self._with_namespace(obj if owner is None else controlled_by(obj, owner))
        return await self._write(obj, lambda: self._writer().create(obj, dry_run=dry_run), dry_run=dry_run)

    async def update(self, obj: R) -> R:
        """Replaces the object unless it changed since it was read. Raises the errors of `Client.update`."""
        obj = self._with_namespace(obj)
        self._applied.forget(type(obj), obj.key)
        return await self._write(obj, lambda: self._writer().update(obj))

    async def update_status(self, obj: R) -> R:
        """Replaces the status unless the object changed since it was read; prefer `status()`."""
        obj = self._with_namespace(obj)
        return await self._write(obj, lambda: self._writer().update_status(obj))

    async def apply(self, obj: R, *, force: bool = True, subresource: str = "", field_manager: str = "") -> R:
        """Applies the fields that are set in `obj` (server-side apply) and owns them. Raises the errors of
        `Client.apply`.

        Args:
            obj: Exactly the fields to own.
            force: Take over fields that other managers own with another value, instead of failing with `Conflict`.
            subresource: For example `status`.
            field_manager: The field manager; by default the controller's (`<manager's field manager>/<controller>`).
        """
        obj = self._with_namespace(obj)
        self._applied.forget(type(obj), obj.key)
        writer = self._writer(field_manager)
        before = self._cached_now(obj)
        result = await self._write(obj, lambda: writer.apply(obj, force=force, subresource=subresource))
        if not subresource and before is not None:
            self._record_contention(before, codec.for_apply(obj), result, writer.field_manager)
        if field_manager:
            return result
        return await self._remove_former_managers(result, writer.field_manager, subresource=subresource)

    async def patch(self, target: R, patch: Patch, *, subresource: str = "") -> R:
        """Patches the object; an empty patch is not sent. Raises the errors of `Client.patch`."""
        if patch.is_empty:
            return target
        target = self._with_namespace(target)
        return await self._write(target, lambda: self._writer().patch(target, patch, subresource=subresource))

    async def delete(
        self,
        target: Resource,
        *,
        if_uid: bool = True,
        if_unchanged: bool = False,
        propagation: Propagation | None = None,
        grace_seconds: int | None = None,
    ) -> bool:
        """Requests the deletion; False if the object does not exist. Arguments and errors as `Client.delete`."""
        target = self._with_namespace(target)
        kind, key = type(target), target.key
        self._applied.forget(kind, key)
        with self._reader.writing(kind, key):
            result = await self.client.delete_with_result(
                target, if_uid=if_uid, if_unchanged=if_unchanged, propagation=propagation, grace_seconds=grace_seconds
            )
            uid = result.uid or target.uid
            if self._dry_run:
                pass
            elif not result.is_deleted:
                self._reader.record_write(kind, key, result.resource_version, uid)
            elif uid:
                self._reader.record_deletion(kind, key, uid)
            elif result.after_lost_response:
                self._reader.invalidate(kind, key)
        return result.existed

    async def delete_all(
        self, kind: type[Resource], *, namespace: str = "", labels: Labels, fields: Fields = None
    ) -> None:
        """Deletes all matching objects (not atomically).

        A namespaced kind needs the namespace. The server does not report which objects it deleted, so reads of the kind
        and namespace go to the server until one of them succeeds. Raises the errors of `Client.delete_all`.
        """
        namespace = self._namespace_of(kind, namespace)
        key = ObjectKey(namespace, "")
        with self._reader.writing(kind, key):
            await self.client.delete_all(kind, namespace=namespace, labels=labels, fields=fields)
            if not self._dry_run:
                self._reader.invalidate(kind, key)

    async def scale(self, target: Resource, replicas: int) -> None:
        """Sets the number of replicas through the `scale` subresource."""
        target = self._with_namespace(target)
        kind, key = type(target), target.key
        with self._reader.writing(kind, key):
            version = await self._writer().scale(target, replicas)
            if version and not self._dry_run:
                self._reader.record_write(kind, key, version, target.uid)

    async def evict(self, pod: Resource, *, grace_seconds: int | None = None) -> bool:
        """Requests the eviction of a pod. Raises the errors of `Client.evict`. The next reads of the pod go to the
        server."""
        pod = self._with_namespace(pod)
        with self._reader.writing(type(pod), pod.key):
            evicted = await self.client.evict(pod, grace_seconds=grace_seconds)
            if not self._dry_run:
                self._reader.invalidate(type(pod), pod.key)
        return evicted

    async def ensure(
        self,
        obj: R,
        *,
        owner: Resource | None = None,
        adopt: bool = False,
        field_manager: str = "",
        record: str = "",
    ) -> R:
        """Applies the fields that are set in `obj` (server-side apply) if they differ from the object.

        Repeated calls with the same `obj` send no request while its fields are unchanged on the server; the comparison
        needs the kind in the cache. Fields that an earlier call applied and this one omits are removed. Two
        controllers, or two calls with different `field_manager`, may ensure different fields of one object. If another
        writer repeatedly reverts the same fields, the next reconciles of the key are delayed by up to a minute, and a
        warning is logged.

        Args:
            obj: Exactly the fields to own: build the object, do not pass one that was read.
            owner: Becomes the controller; its namespace is the default of `obj`.
            adopt: Adopt the object from an earlier owner of the same name and kind.
            field_manager: The field manager; by default the controller's, as in `apply`.
            record: Annotation for the digest of the applied fields, one for each field manager: the first call of a
                later process sends no request either.

        Raises:
            ConfigurationError: The owner is in another namespace.
            AlreadyOwned: The existing object has another controller.
        """
        writer = self._writer(field_manager)
        manager = writer.field_manager
        desired = self._with_namespace(obj if owner is None else controlled_by(obj, owner))
        document = codec.for_apply(desired)
        if record:
            desired, document = with_digest(desired, document, record, manager)
        known, cached = await self._cached_counterpart(desired)
        if cached is not None:
            if owner is not None:
                cached = await self._checked_ownership(cached, owner, adopt=adopt)
            if self._applied.is_current(desired, document, cached, manager):
                return cached
            appliers = self._reader.appliers(type(desired), desired.key)
            if record and self._applied.is_recorded(desired, document, cached, manager, record, appliers, self._former):
                return cached
        own_before = self._applied.has(type(desired), desired.key, self.client.field_manager)
        self._applied.forget(type(desired), desired.key, manager)  # unknown until the response arrives
        result = await self._write(desired, lambda: writer.apply(desired))
        if known:
            self._record_contention(cached, document, result, manager)
        if not field_manager and not own_before:
            result = await self._remove_former_managers(result, manager)
        if not self._dry_run:
            self._applied.remember(desired, document, result, manager)
        return result

    def _cached_now(self, desired: R) -> R | None:
        """Returns the object in its current cached state, without waiting for own writes."""
        kind = type(desired)
        if not self._reader.declares(kind):
            return None
        try:
            return self._reader.get(kind, desired.key)
        except (CacheNotSynced, ConfigurationError, UnreadableObject):
            return None

    def _record_contention(
        self, before: Resource | None, document: dict[str, Any], result: Resource, field_manager: str
    ) -> None:
        """Counts an apply that restored fields it had applied before, for the backoff of the current reconcile."""
        if self._dry_run:
            return
        if before is not None:
            if result.metadata.resource_version == before.metadata.resource_version:
                return
            if not is_partial(before) and contains(before.to_dict(), document):
                return
        digest = digest_of({"manager": field_manager, "document": document})
        times = self._contentions.count(type(result), result.key, digest)
        run = current_write_context()
        if times and run is not None:
            others = tuple(sorted({entry.manager for entry in managed_fields_of(result)} - {field_manager}))
            run.contentions.append(FieldContention(result.kind, result.key, field_manager, times, others))

    async def _remove_former_managers(self, result: R, field_manager: str, *, subresource: str = "") -> R:
        def apply(nothing: R, name: str) -> Awaitable[R]:
            writer = self.client.managed_by(name)
            return self._write(nothing, lambda: writer.apply(nothing, subresource=subresource))

        if self._dry_run:
            return result
        return await remove_former_managers(result, self._former, field_manager, apply, subresource=subresource)

    async def _cached_counterpart(self, desired: R) -> tuple[bool, R | None]:
        """Returns whether the cache is current, and the cached object."""
        kind = type(desired)
        if not self._reader.declares(kind) or not await self._reader.caught_up(kind, desired.key):
            return False, None
        return True, self._reader.get(kind, desired.key)

    async def _checked_ownership(self, present: R, owner: Resource, *, adopt: bool) -> R:
        """Raises AlreadyOwned for another controller's object; replaces the reference to an earlier owner.

        Apply cannot remove that reference: another field manager owns it."""
        reference = owner.owner_reference()
        check_controller(present, reference, adopt=adopt)
        references = present.metadata.owner_references
        if not any(same_owner(former, reference) and former.uid != reference.uid for former in references):
            return present
        adopted = controlled_by(present, owner, adopt=adopt)
        return await self.patch(present, MergePatch.between(present, adopted, lock=True))

    async def _write(self, obj: R, send: Callable[[], Awaitable[R]], *, dry_run: bool = False) -> R:
        kind = type(obj)
        with self._reader.writing(kind, obj.key):
            try:
                result = await send()
            except NotFound:
                self._applied.forget(kind, obj.key)
                raise
            if not (dry_run or self._dry_run):
                self._report(kind, result)
        return result

    def _namespace_of(self, kind: type[Resource], namespace: str) -> str:
        if not kind.namespaced:
            return ""
        return allowed_namespace(kind, namespace, self._namespace) if self._namespace else namespace

    def _with_namespace(self, obj: R) -> R:
        """Returns the object with the namespace of this `Api`: the cache needs its full key."""
        if not self._namespace or not obj.namespaced:
            return obj
        namespace = allowed_namespace(type(obj), obj.namespace, self._namespace)
        return obj if obj.namespace else obj.with_metadata(namespace=namespace)

    def _report(self, kind: type[Resource], result: Resource) -> None:
        """Reports a write to the cache. A terminating object without finalizers and grace period no longer exists."""
        metadata = result.metadata
        if (run := current_write_context()) is not None:
            run.results[kind, result.key] = result
        if result.deleting and not metadata.finalizers and not metadata.deletion_grace_period_seconds:
            self._applied.forget(kind, result.key)
            self._reader.record_deletion(kind, result.key, result.uid)
        else:
            self._reader.record_write(kind, result.key, metadata.resource_version, result.uid, result)

    # Status and events

    @asynccontextmanager
    async def status(self, obj: R) -> AsyncGenerator[StatusScope[R]]:
        """Collects changes of the status, and writes them in one request at the end of the scope if they differ.

        The status is written on exceptions and cancellation as well, but not after `NotLeader`.

        Raises:
            Conflict: The object changed concurrently in every attempt.
            NotFound: The kind has no status subresource. A deleted object is not an error.
        """
        scope = StatusScope(obj, now=self._clock.now())
        writer = StatusWriter(self.patch, self.client.find, self._rng)
        try:
            yield scope
        except NotLeader:
            raise
        except BaseException as error:
            await writer.write_after(error, scope, obj)
            raise
        await writer.write(scope, obj)

    def event(
        self,
        obj: Resource,
        type: Literal["Normal", "Warning"],  # noqa: A002 -- the API's word
        reason: str,
        note: str,
        *,
        action: str = "Reconcile",
        related: Resource | None = None,
    ) -> None:
        """Records an event about the object, as `kubectl describe` shows it; never blocks, may be dropped."""
        if self._events is not None:
            self._events.record(obj, type, reason, note, action=action, related=related)


def _key(kind: type[Resource], namespace: str, name: str) -> ObjectKey:
    return ObjectKey(namespace if kind.namespaced else "", name)
