"""Predicates: which events are worth a reconcile.

Given as `when=` to a controller or one of its watches, combined with `&`, `|` and `~`:

    when=changed("generation", "labels", "status.readyReplicas") & ~labeled("paused=true")

A predicate looks at headers and at single values of the stored text, so dropping an event costs no decoding. One that
raises is an error of the handler: the event is tried again later.

No predicate hides a deletion from a controller's own finalizers: the event that begins the deletion of an object
carrying one of them always reaches the queue.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar, final, runtime_checkable

from kaito.runtime.cache.event import Event, EventType, Snapshot
from kaito.runtime.cache.jsontext import Path, parse_path, same_value
from kaito.runtime.client.path import selector_of
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.meta import LabelSelector, Resource

R = TypeVar("R", bound=Resource)

_META: Final = frozenset(
    {"generation", "resourceVersion", "labels", "annotations", "finalizers", "ownerReferences", "deletionTimestamp"}
)
"""Names that `changed` finds in the metadata."""


@runtime_checkable
class Predicate(Protocol):
    """Decides about an event."""

    def __call__(self, event: Event[Any], /) -> bool:
        """Whether the event goes on to the handler."""
        ...

    def __and__(self, other: "Predicate", /) -> "Predicate": ...

    def __or__(self, other: "Predicate", /) -> "Predicate": ...

    def __invert__(self) -> "Predicate": ...


def paths_of(predicate: Predicate) -> frozenset[Path]:
    """The fields that a predicate of this module compares: a source refuses one whose fields are not kept."""
    return predicate.paths if isinstance(predicate, _Combinable) else frozenset()


class _Combinable:
    __slots__ = ()

    @property
    def paths(self) -> frozenset[Path]:
        return frozenset()

    def __call__(self, event: Event[Any], /) -> bool:
        raise NotImplementedError

    def __and__(self, other: Predicate, /) -> "Predicate":
        return _Both(self, other)

    def __or__(self, other: Predicate, /) -> "Predicate":
        return _Either(self, other)

    def __invert__(self) -> "Predicate":
        return _Not(self)


class _Pair(_Combinable):
    """Two predicates; looks at what either of them looks at."""

    __slots__ = ("_left", "_right")

    def __init__(self, left: Predicate, right: Predicate) -> None:
        self._left = left
        self._right = right

    @property
    def paths(self) -> frozenset[Path]:
        return paths_of(self._left) | paths_of(self._right)


@final
class _Both(_Pair):
    __slots__ = ()

    def __call__(self, event: Event[Any], /) -> bool:
        return self._left(event) and self._right(event)

    def __repr__(self) -> str:
        return f"({self._left} & {self._right})"


@final
class _Either(_Pair):
    __slots__ = ()

    def __call__(self, event: Event[Any], /) -> bool:
        return self._left(event) or self._right(event)

    def __repr__(self) -> str:
        return f"({self._left} | {self._right})"


@final
class _Not(_Combinable):
    __slots__ = ("_inner",)

    def __init__(self, inner: Predicate) -> None:
        self._inner = inner

    @property
    def paths(self) -> frozenset[Path]:
        return paths_of(self._inner)

    def __call__(self, event: Event[Any], /) -> bool:
        return not self._inner(event)

    def __repr__(self) -> str:
        return f"~{self._inner}"


@final
class _Changed(_Combinable):
    __slots__ = ("_names", "_paths")

    def __init__(self, names: tuple[str, ...]) -> None:
        if not names:
            raise ConfigurationError("changed() needs at least one field")
        self._names = names
        try:
            self._paths = frozenset(_path(name) for name in names)
        except ValueError as error:
            raise ConfigurationError(f"changed(): {error}") from error

    @property
    def paths(self) -> frozenset[Path]:
        return self._paths

    def __call__(self, event: Event[Any], /) -> bool:
        if event.type is not EventType.UPDATE or event.old is None or event.new is None or event.begins_deletion:
            return True
        return any(_differs(path, event.old, event.new) for path in self._paths)

    def __repr__(self) -> str:
        return f"changed({', '.join(map(repr, self._names))})"


def _path(name: str) -> Path:
    return ("metadata", name) if name in _META else parse_path(name)


def _differs(path: Path, old: Snapshot[Any], new: Snapshot[Any]) -> bool:
    match path:
        case ("metadata", "generation"):
            return old.header.generation != new.header.generation
        case ("metadata", "resourceVersion"):
            return old.header.resource_version != new.header.resource_version
        case ("metadata", "labels"):
            return old.header.labels != new.header.labels
        case _:
            return not same_value(old.text_at(path), new.text_at(path))


def changed(*fields: str) -> Predicate:
    """Updates pass when one of the fields differs; creations, deletions and generic events always pass.

    The update that begins a deletion (of an object with finalizers or a grace period) is a deletion here.

    Fields are wire names: `generation`, `resourceVersion`, `labels`, `annotations` and other metadata by their last
    name, everything else by its path, `status.readyReplicas`, `metadata.annotations[example.com/key]`. Several of them
    are any of them. Kinds without a status subresource never change their generation; use `spec` there.

    Raises:
        ConfigurationError: no field, or a malformed path.
    """
    return _Changed(fields)


@final
class _Differs(_Combinable):
    __slots__ = ("_view",)

    def __init__(self, view: Callable[[Any], object]) -> None:
        self._view = view

    def __call__(self, event: Event[Any], /) -> bool:
        if event.type is not EventType.UPDATE or event.old is None or event.new is None or event.begins_deletion:
            return True
        return self._view(event.old.object) != self._view(event.new.object)

    def __repr__(self) -> str:
        return f"differs({getattr(self._view, '__qualname__', self._view)})"


def differs(view: Callable[[R], object]) -> Predicate:
    """Updates pass when the function gives another value for the new state than for the old; all else passes.

    For what no path can say, for example "Ready turned" in a list of conditions with heartbeats. Decodes both states.
    """
    return _Differs(view)


@final
class _Labeled(_Combinable):
    __slots__ = ("_selector",)

    def __init__(self, selector: LabelSelector) -> None:
        self._selector = selector

    def __call__(self, event: Event[Any], /) -> bool:
        latest = event.latest
        return latest is not None and self._selector.matches(latest.header.labels)

    def __repr__(self) -> str:
        return f"labeled({str(self._selector)!r})"


def labeled(selector: LabelSelector | Mapping[str, str] | str) -> Predicate:
    """Events pass when the object (its new state in an update) has the labels.

    `"app"` means that the label is there, `"app=web,tier!=db,stage in (a,b)"` compares. Prefer `Cached(labels=...)`
    where every handler wants the same: then the server sends nothing else.

    Raises:
        ConfigurationError: a text that is not such a list, or empty.
    """
    labels = selector_of(selector)
    if labels is None or labels.is_empty:
        raise ConfigurationError(f"labeled({selector!r}) would let everything pass")
    return _Labeled(labels)


@final
class _Matching(_Combinable):
    __slots__ = ("_function",)

    def __init__(self, function: Callable[[Any], bool]) -> None:
        self._function = function

    def __call__(self, event: Event[Any], /) -> bool:
        latest = event.latest
        return latest is not None and self._function(latest.object)

    def __repr__(self) -> str:
        return f"matching({getattr(self._function, '__qualname__', self._function)})"


def matching(function: Callable[[R], bool]) -> Predicate:
    """Events pass when the function says so of the object (its new state in an update). Decodes the object."""
    return _Matching(function)


@final
class _On(_Combinable):
    __slots__ = ("_types",)

    def __init__(self, types: frozenset[EventType]) -> None:
        self._types = types

    def __call__(self, event: Event[Any], /) -> bool:
        return event.type in self._types

    def __repr__(self) -> str:
        return f"on({', '.join(sorted(self._types))})"


def on(*types: EventType) -> Predicate:
    """Events pass when they are of one of the types."""
    return _On(frozenset(types))
