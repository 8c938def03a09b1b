"""What a reconcile holds: reads from the cache that are never older than our own writes, and fenced writes.

The manager makes one `Api` and every `Request` carries it. Kinds the cache declares are read from it, kinds named
`live` from the server, all others are refused: no read silently starts a cluster-wide watch. Every write first asks the
fence (is this process still the leader?), is recorded under the manager's field owner, and is reported to the cache so
that the next read sees it.
"""

import asyncio
import copy
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar, final

from kaito.runtime.client import codec
from kaito.runtime.client.applied import AppliedObjects, digest_of
from kaito.runtime.client.client import Client, Fields, Labels, Propagation, placed
from kaito.runtime.client.codec import ResourceList
from kaito.runtime.client.consistency import Consistency, IndexKey, Reader, Scope, Undecoded
from kaito.runtime.client.events import EventSink
from kaito.runtime.client.intercept import Interceptor
from kaito.runtime.client.managed_fields import managed_fields_of, remove_former_managers
from kaito.runtime.client.patch import MergePatch, Patch, contains
from kaito.runtime.client.path import label_query, selector_of
from kaito.runtime.client.status import StatusScope
from kaito.runtime.client.unreadable import Unreadable, log_skipped, skips_unreadable
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
    Conflict,
    KaitoRuntimeError,
    NotFound,
    NotLeader,
    UndeclaredKind,
    UnreadableObject,
    api_error,
)
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import LabelSelector, ObjectKey, Resource
from kaito.runtime.meta.model import is_partial
from kaito.runtime.ownership import check_controller, controlled_by, is_owned_by, same_owner

R = TypeVar("R", bound=Resource)

STATUS_ATTEMPTS = 4
"""Tries of one status write when others keep changing the object (client-go's backoff preset)."""

DECODED_AT_ONCE = 32
"""Objects of a cached list decoded before other tasks get a turn: about 3 ms (docs/internals/benchmarks.md)."""

STATUS_FLUSH_SECONDS = 5.0
"""Longest the status write of a cancelled reconcile may take: shutdown and deadlines wait for it."""

_log = get_logger(__name__)


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
        """Join a client and a cache.

        Args:
            client: sends. What is written in a run of a controller is owned by `<its field manager>/<controller>`, all
                else by its field manager.
            reader: the cache.
            live: kinds read from the server each time.
            fence: called before every attempt of every write; raises `NotLeader`.
            former_field_managers: names under which former versions applied what controllers apply now. Their ownership
                ends with the first apply of an object, so that no field stays behind; the client's own is among them.
            events: where `event` goes; without one events are dropped.
            clock: time of conditions.
            rng: randomness of pauses between attempts.
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
        """The same, with an interceptor before every request: all writes, and the reads that go to the server."""
        clone = copy.copy(self)
        clone.client = self.client.intercepted(interceptor)
        return clone

    def dry_run(self) -> "Api":
        """The same reads; writes are checked and answered by the server and not kept, events are dropped."""
        clone = copy.copy(self)
        clone.client = self.client.dry_run()
        clone._dry_run = True
        clone._applied = AppliedObjects()
        clone._contentions = ContentionTracker()
        clone._events = None
        return clone

    def namespaced(self, namespace: str) -> "Api":
        """The same within one namespace: it is the default of every call, and any other is refused.

        Cluster-scoped kinds stay reachable.
        """
        clone = copy.copy(self)
        clone.client = self.client.namespaced(namespace)
        clone._namespace = namespace
        return clone

    def _writer(self, field_manager: str = "") -> Client:
        """The client under the field manager of a call, else of the running controller, else its own."""
        run = current_write_context()
        if not field_manager and run is None:
            return self.client
        owner = self.client.field_manager
        return self.client.managed_by(field_manager or field_manager_of(owner, run.controller if run else ""))

    def fence(self) -> None:
        """Raise unless this process surely holds the lease: the check that precedes every write of this `Api`.

        For writes to systems other than Kubernetes (a cloud's API). Call it right before the request is sent, not at
        the start of a run: a process that was stopped and continues must not send what it had prepared. Returns at once
        when the manager has no lease.

        Raises:
            NotLeader: the lease is not held, or could expire before the write arrives.
        """
        if self._fence is not None:
            self._fence()

    # Reads

    async def get(self, kind: type[R], name: str, namespace: str = "", *, consistency: Consistency = "own-writes") -> R:
        """The object.

        Raises:
            NotFound: there is none.
            UndeclaredKind: nothing declares the kind.
            CacheNotSynced: the kind's first list has not arrived.
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
        """The object, or None. Raises as `get`, but for NotFound."""
        if self._namespace:
            namespace = self._place(kind, namespace)
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
        """The objects that match everything given, ordered by namespace and name, and their `resource_version`.

        `owned_by` compares UIDs: the children of a former object of the same name are not listed.

        Objects that do not fit their model are left out, so that one of them does not fail every list of the kind; the
        answer's `unreadable` and the log name them. Lists by `owned_by` or `index` fail instead, because what they miss
        would be created again. `unreadable` chooses otherwise; where absence decides about creating or deleting, write
        `unreadable="fail"`. Raises as `get`, and:

        Raises:
            UnreadableObject: an object of the answer does not fit its model, in lists that fail.
        """
        if owned_by is not None and not owned_by.uid:
            message = f"{owned_by.kind} {owned_by.key} has no uid: it cannot own anything yet"
            raise ConfigurationError(message)
        selector = selector_of(labels)
        namespace = self._place(kind, namespace)
        owner = "" if owned_by is None else owned_by.uid
        skip = skips_unreadable(unreadable, narrow=bool(owner) or index is not None)
        if not self._reads_live(kind, consistency) and (
            consistency == "cached"
            or await self._reader.caught_up(kind, namespace=namespace, labels=selector, owner=owner, index=index)
        ):
            chosen = self._reader.select(
                kind, namespace=namespace, labels=selector, owner=owner, index=index, with_unfiled=skip
            )
            return await _decoded(chosen, self._reader.version(kind, namespace), skip=skip)
        # A fallback for the cache answers the same question; asked for live, the server's whole answer counts.
        fallback = consistency != "live" and self._reader.declares(kind)
        found: list[R] = []
        misfits: list[UnreadableObject] = []
        version = ""
        for scope in self._reader.scopes(kind, namespace) if fallback else [Scope(namespace)]:
            wanted = ",".join(filter(None, (scope.labels, label_query(selector))))
            began = monotonic()
            part = await self.client.list(kind, namespace=scope.namespace, labels=wanted, fields=scope.fields)
            found += part
            misfits += [misfit for misfit in part.unreadable if not owner or owner in misfit.owners]
            version = part.resource_version
            if fallback:
                self._reader.record_live_list(kind, scope.namespace, began, version)
        if misfits and not skip:
            raise misfits[0]
        matching = [
            obj
            for obj in found
            if (owned_by is None or is_owned_by(obj, owned_by)) and (index is None or index.matches(obj))
        ]
        answer = ResourceList(sorted(matching, key=lambda obj: obj.key), resource_version=version)
        answer.unreadable = misfits
        return answer

    def _reads_live(self, kind: type[Resource], consistency: Consistency) -> bool:
        declared = self._reader.declares(kind)
        if not declared and kind.gvk() not in self._live:
            raise UndeclaredKind(kind.kind)
        return consistency == "live" or not declared

    # Writes

    async def create(self, obj: R, *, owner: Resource | None = None, dry_run: bool = False) -> R:
        """Create the object, for what is made up once (a password); `ensure` is for what can be said again.

        Args:
            obj: the object.
            owner: becomes the controller; `obj` takes its namespace when it names none.
            dry_run: the server answers as always and keeps nothing.

        Raises:
            ConfigurationError: the owner lives in another namespace.
            AlreadyExists: of that name there is one. Else as `Client.create`.
        """
        obj = self._placed(obj if owner is None else controlled_by(obj, owner))
        return await self._write(obj, lambda: self._writer().create(obj, dry_run=dry_run), dry_run=dry_run)

    async def update(self, obj: R) -> R:
        """Replace the object, unless it changed since it was read. Raises as `Client.update`."""
        obj = self._placed(obj)
        self._applied.forget(type(obj), obj.key)
        return await self._write(obj, lambda: self._writer().update(obj))

    async def update_status(self, obj: R) -> R:
        """Replace the status, unless the object changed since it was read; `status()` is usually better."""
        obj = self._placed(obj)
        return await self._write(obj, lambda: self._writer().update_status(obj))

    async def apply(self, obj: R, *, force: bool = True, subresource: str = "", field_manager: str = "") -> R:
        """Make the fields set in `obj` true, owning them. Raises as `Client.apply`.

        Args:
            obj: the fields to own, and no others.
            force: take fields from others that own them with another value, instead of failing with `Conflict`.
            subresource: for example `status`.
            field_manager: the owner; by default the controller's (`<manager's field manager>/<controller>`).
        """
        obj = self._placed(obj)
        self._applied.forget(type(obj), obj.key)
        writer = self._writer(field_manager)
        before = self._shown_now(obj)
        result = await self._write(obj, lambda: writer.apply(obj, force=force, subresource=subresource))
        if not subresource and before is not None:
            self._record_contention(before, codec.for_apply(obj), result, writer.field_manager)
        if field_manager:
            return result
        return await self._remove_former_managers(result, writer.field_manager, subresource=subresource)

    async def patch(self, target: R, patch: Patch, *, subresource: str = "") -> R:
        """Change the object by a patch; an empty one is not sent. Raises as `Client.patch`."""
        if patch.is_empty:
            return target
        target = self._placed(target)
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
        """Ask for deletion; False when it was gone already. Arguments and errors as of `Client.delete`."""
        target = self._placed(target)
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
        """Delete every object that matches (not atomic). A namespaced kind needs the namespace.

        The server does not report which objects it deleted: reads of the kind and namespace go to the server until one
        of them has been answered. Raises as `Client.delete_all`.
        """
        namespace = self._place(kind, namespace)
        key = ObjectKey(namespace, "")
        with self._reader.writing(kind, key):
            await self.client.delete_all(kind, namespace=namespace, labels=labels, fields=fields)
            if not self._dry_run:
                self._reader.invalidate(kind, key)

    async def scale(self, target: Resource, replicas: int) -> None:
        """Set the number of replicas through the `scale` subresource."""
        target = self._placed(target)
        kind, key = type(target), target.key
        with self._reader.writing(kind, key):
            version = await self._writer().scale(target, replicas)
            if version and not self._dry_run:
                self._reader.record_write(kind, key, version, target.uid)

    async def evict(self, pod: Resource, *, grace_seconds: int | None = None) -> bool:
        """Ask for a pod's eviction; raises as `Client.evict`. The next reads of the pod go to the server."""
        pod = self._placed(pod)
        with self._reader.writing(type(pod), pod.key):
            asked = await self.client.evict(pod, grace_seconds=grace_seconds)
            if not self._dry_run:
                self._reader.invalidate(type(pod), pod.key)
        return asked

    async def ensure(self, obj: R, *, owner: Resource | None = None, adopt: bool = False, field_manager: str = "") -> R:
        """Make the object exist with the fields set in `obj`: server-side apply, sent only when something differs.

        The same `obj` again costs no request as long as nobody changed what it says (the comparison needs the kind in
        the cache). Fields ensured before and absent now are removed.

        Two controllers, or two calls with a `field_manager` each, may ensure different fields of one object. When the
        same fields are undone again and again, the next runs of the key are held back, up to a minute, with a warning.

        Args:
            obj: the fields to own, and no others: build it, do not read it.
            owner: becomes the controller; `obj` takes its namespace when it names none.
            adopt: take over from a former owner of the same name and kind.
            field_manager: the owner of the fields; the controller's by default, as in `apply`.

        Raises:
            ConfigurationError: the owner lives in another namespace.
            AlreadyOwned: the existing object has another controller.
        """
        desired = self._placed(obj if owner is None else controlled_by(obj, owner))
        document = codec.for_apply(desired)
        writer = self._writer(field_manager)
        manager = writer.field_manager
        known, cached = await self._cached_counterpart(desired)
        if cached is not None:
            if owner is not None:
                cached = await self._checked_ownership(cached, owner, adopt=adopt)
            if self._applied.is_current(desired, document, cached, manager):
                return cached
        own_before = self._applied.has(type(desired), desired.key, self.client.field_manager)
        self._applied.forget(type(desired), desired.key, manager)  # without an answer, what it owns now is not known
        result = await self._write(desired, lambda: writer.apply(desired))
        if known:
            self._record_contention(cached, document, result, manager)
        if not field_manager and not own_before:
            result = await self._remove_former_managers(result, manager)
        if not self._dry_run:
            self._applied.remember(desired, document, result, manager)
        return result

    def _shown_now(self, desired: R) -> R | None:
        """What the cache shows of the object at this moment, without waiting for own writes."""
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
        """Count an apply that had to restore what it had applied before, for the run it belongs to."""
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
        """Whether the cache can tell, and what it has."""
        kind = type(desired)
        if not self._reader.declares(kind) or not await self._reader.caught_up(kind, desired.key):
            return False, None
        return True, self._reader.get(kind, desired.key)

    async def _checked_ownership(self, present: R, owner: Resource, *, adopt: bool) -> R:
        """Refuse a stranger's object; take a former owner's reference out, which apply cannot (it is not ours)."""
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

    def _place(self, kind: type[Resource], namespace: str) -> str:
        if not kind.namespaced:
            return ""
        return placed(kind, namespace, self._namespace) if self._namespace else namespace

    def _placed(self, obj: R) -> R:
        """The object in the namespace this is bound to; the cache must be told of it under its full key."""
        if not self._namespace or not obj.namespaced:
            return obj
        namespace = placed(type(obj), obj.namespace, self._namespace)
        return obj if obj.namespace else obj.with_metadata(namespace=namespace)

    def _report(self, kind: type[Resource], result: Resource) -> None:
        """Tell the cache what it must show. A deleting object without finalizers or grace period is gone by now."""
        metadata = result.metadata
        if result.deleting and not metadata.finalizers and not metadata.deletion_grace_period_seconds:
            self._applied.forget(kind, result.key)
            self._reader.record_deletion(kind, result.key, result.uid)
        else:
            self._reader.record_write(kind, result.key, metadata.resource_version, result.uid, result)

    # Status and events

    @asynccontextmanager
    async def status(self, obj: R) -> AsyncGenerator[StatusScope[R]]:
        """Collect changes of the object's status; leaving the scope writes them, in one request, if they differ.

        Written on every way out, exceptions and cancellation included, but not after the lease was lost.

        Raises:
            Conflict: others changed the object again and again.
            NotFound: the kind has no status subresource. An object that is gone is not an error.
        """
        scope = StatusScope(obj, now=self._clock.now())
        try:
            yield scope
        except NotLeader:
            raise
        except BaseException as error:
            await self._flush_after(error, scope, obj)
            raise
        await self._flush(scope, obj)

    async def _flush_after(self, error: BaseException, scope: StatusScope[R], obj: R) -> None:
        """Write the status although the reconcile failed; its own error stays the one that is raised."""
        try:
            async with asyncio.timeout(STATUS_FLUSH_SECONDS):
                await self._flush(scope, obj)
        except (KaitoRuntimeError, TimeoutError) as failure:
            error.add_note(f"the status of {obj.kind} {obj.key} could not be written either: {failure}")
            _log.warning("status not written", kind=obj.kind, key=str(obj.key), error=str(failure))

    async def _flush(self, scope: StatusScope[R], obj: R) -> None:
        present = obj
        for attempt in range(1, STATUS_ATTEMPTS + 1):
            patch = scope.patch_for(present)
            try:
                await self.patch(present, patch, subresource="status")
                return
            except NotFound as error:
                if not error.is_object:  # the kind, or its status subresource, is not served
                    raise
                return  # nothing left to report about
            except Conflict:
                if attempt == STATUS_ATTEMPTS:
                    raise
            # client-go's DefaultBackoff: 10 ms, factor 5, jitter 0.1
            await asyncio.sleep(0.01 * 5.0 ** (attempt - 1) * (1.0 + 0.1 * self._rng.random()))
            newer = await self.client.find(type(obj), obj.name, obj.namespace)
            if newer is None or newer.uid != obj.uid:
                return
            present = newer

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
        """Tell people something about the object, for `kubectl describe`; never blocks, may be dropped."""
        if self._events is not None:
            self._events.record(obj, type, reason, note, action=action, related=related)


async def _decoded(chosen: Sequence[Undecoded[R]], version: str, *, skip: bool) -> ResourceList[R]:
    """Decode a selection, letting the loop turn: a thousand pods are a tenth of a second of work."""
    objects: ResourceList[R] = ResourceList(resource_version=version)
    for number, undecoded in enumerate(chosen, 1):
        objects.add_decoded(undecoded.decode, skip=skip)
        if number % DECODED_AT_ONCE == 0:
            await asyncio.sleep(0)
    log_skipped(objects.unreadable)
    return objects


def _key(kind: type[Resource], namespace: str, name: str) -> ObjectKey:
    return ObjectKey(namespace if kind.namespaced else "", name)
