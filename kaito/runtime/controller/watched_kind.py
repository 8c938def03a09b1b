"""A kind that a controller watches, and how its events become keys; made by the `watches` methods."""

from dataclasses import dataclass
from typing import Any

from kaito.runtime.controller.arguments import check_handler, check_kind, check_mapper, check_predicate, reject
from kaito.runtime.controller.cache_needs import AnyCluster
from kaito.runtime.handler import Handler, KeyMapper
from kaito.runtime.meta import Resource
from kaito.runtime.predicate import Predicate


@dataclass(frozen=True, slots=True)
class WatchedKind:
    """A kind whose events are mapped to keys."""

    kind: type[Resource]
    to: KeyMapper[Any, Any] | None
    handler: Handler[Any] | None
    """Given instead of `to`."""
    when: Predicate | None
    cluster: AnyCluster | None
    """The watched cluster; None for the manager's own."""


def watched_kind(
    controller: str,
    kind: type[Resource],
    *,
    to: KeyMapper[Any, Any] | None,
    handler: Handler[Any] | None,
    when: Predicate | None,
    cluster: AnyCluster | None,
) -> WatchedKind:
    """Validates the arguments of `watches`.

    Raises:
        ConfigurationError: neither or both of `to` and `handler`, or an argument that is not a kind, function or
            predicate.
    """
    check_kind(kind, f"controller {controller}: watches")
    check_predicate(controller, when)
    where = f"controller {controller}: watches({kind.kind}, "
    if (to is None) == (handler is None):
        reject(f"{where}...) needs a function: to= (from an object to keys) or handler= (from an event to the queue)")
    if to is not None:
        check_mapper(to, f"{where}to=...)")
    if handler is not None:
        check_handler(handler, f"{where}handler=...)")
    return WatchedKind(kind, to, handler, when, cluster)
