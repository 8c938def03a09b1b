"""What the workers of each sort of controller do with a key, up to the call of the user's function.

An object controller reads the object, adds its finalizers and calls the reconcile function, or a cleanup for an object
that is being deleted. A periodic controller calls its function and requeues itself. A keyed controller calls its
function with the key.
"""

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TypeVar

from kaito.runtime.cache import Cache
from kaito.runtime.client import Api
from kaito.runtime.clock import Clock
from kaito.runtime.controller.declaration import Controller
from kaito.runtime.controller.engine import WorkFunction
from kaito.runtime.controller.failure_handling import FailureHooks
from kaito.runtime.controller.failures import Failure
from kaito.runtime.controller.keyed import Keyed
from kaito.runtime.controller.periodic import Periodic
from kaito.runtime.errors import raise_collected
from kaito.runtime.finalizer import add_finalizer, has_finalizer, remove_finalizer
from kaito.runtime.lifespan import StateProvider, no_state
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.reconcile import Again, KeyedRequest, PeriodicRequest, Request, earliest
from kaito.runtime.workqueue import Item

R = TypeVar("R", bound=Resource)
K = TypeVar("K", bound=Hashable)

UNSELECTED_SECONDS = 60.0
"""Interval of live reads of an object that carries a finalizer but is outside of the cache's selection."""


def object_work(
    controller: Controller[R],
    api: Api,
    clock: Clock,
    cache: Cache,
    state: StateProvider = no_state,
    values: Mapping[object, object] = MappingProxyType({}),
) -> WorkFunction[ObjectKey]:
    """The work function of an object controller. `values`: those of its pollings."""
    log = get_logger(f"controller.{controller.name}")
    request = _object_requests(controller, api, clock, state, values)

    async def work(item: Item[ObjectKey]) -> Again | None:
        obj = await api.find(controller.kind, item.key.name, item.key.namespace)
        if obj is None and controller.finalizers and is_selected(cache, controller.kind, item.key.namespace):
            # A changed label removes an object from a selecting cache like a deletion. Without a live read its
            # finalizer would then block its deletion indefinitely.
            obj = await api.find(controller.kind, item.key.name, item.key.namespace, consistency="live")
            if obj is not None and not any(has_finalizer(obj, name) for name in controller.finalizers):
                obj = None
            if obj is not None and not obj.deleting:
                log.warning(
                    "object with a finalizer is outside of the cache's selection", again_after=UNSELECTED_SECONDS
                )
                return Again(UNSELECTED_SECONDS, "waits for its deletion outside of the cache's selection")
        if obj is None:
            return None

        if obj.deleting:
            return await _clean_up(controller, obj, partial(request, item))
        for finalizer in controller.finalizers:
            obj = await add_finalizer(api, obj, finalizer)
        current = request(item, obj)
        return earliest(await controller.reconcile(current), current.requeue)

    return work


def object_hooks(
    controller: Controller[R],
    api: Api,
    clock: Clock,
    state: StateProvider = no_state,
    values: Mapping[object, object] = MappingProxyType({}),
) -> FailureHooks[ObjectKey]:
    """The failure hooks of an object controller."""

    async def generation(key: ObjectKey) -> int | None:
        obj = await api.find(controller.kind, key.name, key.namespace, consistency="cached")
        return obj.metadata.generation if obj is not None else None

    declared = controller.failure_report
    if declared is None:
        return FailureHooks(generation=generation)
    request = _object_requests(controller, api, clock, state, values)

    async def report(item: Item[ObjectKey], failure: Failure) -> None:
        obj = await api.find(controller.kind, item.key.name, item.key.namespace)
        if obj is not None:
            await declared.function(request(item, obj), failure)

    return FailureHooks(report, declared.after, generation)


def _object_requests(
    controller: Controller[R], api: Api, clock: Clock, state: StateProvider, values: Mapping[object, object]
) -> Callable[[Item[ObjectKey], R], Request[R]]:
    log = get_logger(f"controller.{controller.name}")

    def request(item: Item[ObjectKey], obj: R) -> Request[R]:
        return Request(
            key=item.key,
            object=obj,
            api=api,
            log=log,
            causes=item.causes,
            attempt=item.attempt,
            clock=clock,
            lifespan_state=state(),
            source_state=values,
        )

    return request


def is_selected(cache: Cache, kind: type[Resource], namespace: str) -> bool:
    """Whether the cache selects objects of the kind by something that can change: labels, or fields but names."""
    return any(
        scope.labels or any(not field.startswith("metadata.name") for field in scope.fields.split(",") if field)
        for scope in cache.scopes(kind, namespace)
    )


async def _clean_up(controller: Controller[R], obj: R, request: Callable[[R], Request[R]]) -> Again | None:
    """Runs each cleanup whose finalizer is still there. A failure of one does not prevent the others."""
    soonest: Again | None = None
    errors: list[Exception] = []
    for finalizer, cleanup in controller.finalizers.items():
        if not has_finalizer(obj, finalizer):
            continue
        current = request(obj)  # one per cleanup: the requeue of one must not keep the finalizer of another
        try:
            again = earliest(await cleanup(current), current.requeue)
            if again is None:
                await remove_finalizer(current.api, obj, finalizer)
            soonest = earliest(soonest, again)
        except Exception as error:  # noqa: BLE001 - collected and raised below
            errors.append(error)
    raise_collected(errors, "cleanups")
    return soonest


def periodic_work(periodic: Periodic, api: Api, clock: Clock, state: StateProvider = no_state) -> WorkFunction[str]:
    """The work function of a periodic controller."""
    log = get_logger(f"controller.{periodic.name}")

    async def work(item: Item[str]) -> Again | None:
        request = PeriodicRequest(api=api, log=log, attempt=item.attempt, clock=clock, lifespan_state=state())
        again = earliest(await periodic.function(request), request.requeue)
        return again or Again(periodic.seconds, "period")

    return work


def keyed_work(keyed: Keyed[K], api: Api, clock: Clock, state: StateProvider = no_state) -> WorkFunction[K]:
    """The work function of a keyed controller."""
    request = _keyed_requests(keyed, api, clock, state)

    async def work(item: Item[K]) -> Again | None:
        current = request(item)
        return earliest(await keyed.function(current), current.requeue)

    return work


def keyed_hooks(keyed: Keyed[K], api: Api, clock: Clock, state: StateProvider = no_state) -> FailureHooks[K]:
    """The failure hooks of a keyed controller."""
    declared = keyed.failure_report
    if declared is None:
        return FailureHooks()
    request = _keyed_requests(keyed, api, clock, state)

    async def report(item: Item[K], failure: Failure) -> None:
        await declared.function(request(item), failure)

    return FailureHooks(report, declared.after)


def _keyed_requests(
    keyed: Keyed[K], api: Api, clock: Clock, state: StateProvider
) -> Callable[[Item[K]], KeyedRequest[K]]:
    log = get_logger(f"controller.{keyed.name}")

    def request(item: Item[K]) -> KeyedRequest[K]:
        return KeyedRequest(
            key=item.key,
            api=api,
            log=log,
            causes=item.causes,
            attempt=item.attempt,
            clock=clock,
            lifespan_state=state(),
        )

    return request
