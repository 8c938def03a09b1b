"""Predicates: filter events before they reach a handler.

They are passed as `when=` to a controller or a watch, and combined by `&`, `|` and `~`:

    when=changed("generation", "labels", "status.readyReplicas") & ~labeled("paused=true")

Predicates compare metadata and single values of the stored JSON, so that rejected events are not decoded. An exception
is an error of the handler: the event is delivered again.

Predicates do not apply to the event that begins the deletion of an object with a finalizer of the controller: it always
reaches the queue.
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
"""Names that `changed` resolves to metadata fields."""


@runtime_checkable
class Predicate(Protocol):
    """Filter of events."""

    def __call__(self, event: Event[Any], /) -> bool:
        """Whether the event is passed to the handler."""
        ...

    def __and__(self, other: "Predicate", /) -> "Predicate": ...

    def __or__(self, other: "Predicate", /) -> "Predicate": ...

    def __invert__(self) -> "Predicate": ...


def paths_of(predicate: Predicate) -> frozenset[Path]:
    """Returns the fields that a predicate compares: a source rejects predicates of fields that are not cached."""
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
    """Combination of two predicates."""

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
    """Passes updates in which one of the fields differs; creations, deletions and generic events always pass. The
    update that begins a deletion (of an object with finalizers or a grace period) counts as a deletion.

    Fields have their JSON names: metadata fields such as `generation`, `resourceVersion`, `labels` and `annotations` by
    name, other fields by path, such as `status.readyReplicas` or `metadata.annotations[example.com/key]`. Without a
    status subresource the generation may never change; use `spec` for such kinds.

    Raises:
        ConfigurationError: No field, or a malformed path.
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
    """Passes updates in which the function's value differs between the old and the new state; other events pass.

    For comparisons that a path cannot express, for example the status of Ready in conditions with heartbeats. Decodes
    both states.
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
    """Passes events of objects whose labels (of the new state in an update) match the selector.

    `"app"` requires the label, `"app=web,tier!=db,stage in (a,b)"` compares values. Prefer `Cached(labels=...)` if all
    handlers need the same selector: the server then sends only matching objects.

    Raises:
        ConfigurationError: The selector is invalid or empty.
    """
    labels = selector_of(selector)
    if labels is None or labels.is_empty:
        raise ConfigurationError(f"labeled({selector!r}) needs a selector; an empty one matches everything")
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
    """Passes events for whose object (new state in an update) the function returns True. Decodes the object."""
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
    """Passes events of the given types."""
    return _On(frozenset(types))
