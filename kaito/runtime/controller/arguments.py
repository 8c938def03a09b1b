"""Validates the arguments of controller declarations, so that a mistake fails where it is written.

Used by all sorts of controllers. Every check raises `ConfigurationError` with the controller, the argument and the
remedy.
"""

import inspect
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import CodeType, SimpleNamespace
from typing import Any, Final, NoReturn, cast, get_args, get_origin, get_type_hints

from kaito.runtime.cache import Cached
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.finalizer import is_finalizer_name
from kaito.runtime.meta import Resource
from kaito.runtime.reconcile import KeyedRequest, PeriodicRequest, Request
from kaito.runtime.source import Channel, Inbound, Polling, Source

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9_.]*[a-z0-9])?")


def reject(message: str) -> NoReturn:
    """Raises ConfigurationError."""
    raise ConfigurationError(message)


def check_kind(kind: object, where: str) -> None:
    """Raises ConfigurationError unless the value is a subclass of `Resource` with an API version and a kind."""
    if isinstance(kind, Resource):
        reject(f"{where}: give the class {type(kind).__name__}, not one of its objects")
    if not (isinstance(kind, type) and issubclass(kind, Resource)) or not kind.kind or not kind.api_version:
        reject(f"{where}: {kind!r} is not a kind: subclass Resource with api= and kind=")


def check_name(name: object, what: str = "controller") -> None:
    """Raises ConfigurationError unless the name can be a label of metrics and a part of object names."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        reject(f"{what} name {name!r}: lower case letters, digits, '-', '_' and '.' only")


def check_finalizer(controller: str, finalizer: object) -> None:
    """Raises ConfigurationError unless the API server accepts the finalizer."""
    if not isinstance(finalizer, str) or not is_finalizer_name(finalizer):
        reject(f"controller {controller}: finalizer {finalizer!r} is not of the form domain/name")


def check_cached(controller: str, cached: object) -> None:
    """Raises ConfigurationError unless the value is a list of `Cached`."""
    if isinstance(cached, Cached):
        reject(f"controller {controller}: cache= takes a list: write cache=[{cached!r}]")
    for each in cast("Iterable[object]", cached):
        if not isinstance(each, Cached):
            name = each.__name__ if isinstance(each, type) else repr(each)
            reject(f"controller {controller}: cache= takes declarations: write Cached({name}), not {name}")


def check_source(controller: str, source: object) -> None:
    """Raises ConfigurationError unless the value is a `Channel` or a `Source`."""
    if not isinstance(source, Channel | Polling | Inbound | Source):
        hint = ": write FunctionSource(...) around a function" if callable(source) else ""
        reject(f"controller {controller}: receives() takes a Channel, Polling, Inbound or Source, not {source!r}{hint}")


def check_predicate(controller: str, when: object) -> None:
    """Raises ConfigurationError unless the value is a predicate or None."""
    if when is not None and not callable(when):
        reject(f"controller {controller}: when={when!r} is not a predicate: write when=changed({when!r}) or the like")


def check_mapper(to: object, where: str) -> None:
    """Raises ConfigurationError unless the value can be called with an object and a view."""
    if not callable(to):
        reject(f"{where} needs a function, not {to!r}")
    if inspect.isasyncgenfunction(to):
        reject(f"{where}: {to!r} is an async generator: return a list of keys instead")
    if (mismatch := _signature_mismatch(to, object(), object())) is not None:
        reject(f"{where}: it is called with the object and a View of the cache, (obj, view): {mismatch}")


def check_handler(handler: object, where: str) -> None:
    """Raises ConfigurationError unless the value can be called with an event, a queue and a view."""
    if not callable(handler):
        reject(f"{where} needs a function, not {handler!r}")
    if (mismatch := _signature_mismatch(handler, object(), object(), object())) is not None:
        reject(f"{where}: it is called with the event, the queue and a View, (event, queue, view): {mismatch}")


def check_function(function: object, what: str, *, kind: type[Resource] | None, keyed: bool = False) -> None:
    """Raises ConfigurationError unless the value is an async function that takes the controller's request.

    Args:
        function: the reconcile, cleanup, periodic or keyed function.
        what: its description in messages.
        kind: the kind whose requests it takes; None for periodic and keyed controllers.
        keyed: it takes the requests of a keyed controller.
    """
    if inspect.iscoroutine(function):
        function.close()
        reject(f"{what}: give the function itself, without calling it")
    if isinstance(function, type):
        reject(f"{what}: give an async function or an object, not the class {function.__name__}")
    inner: Any = function
    while isinstance(inner, partial):
        inner = inner.func
    target = inner if inspect.isroutine(inner) else getattr(inner, "__call__", None)  # noqa: B004 - objects with async call
    if not callable(function) or not inspect.iscoroutinefunction(target):
        reject(f"{what}: {_with_location(function)} is not an async function")
    mismatch = _signature_mismatch(function, object())
    if mismatch is not None:
        reject(f"{what}: it takes exactly one argument, the request ({mismatch})")
    _check_annotation(function, target, what, kind, KeyedRequest if keyed else PeriodicRequest)


def check_report(function: object, after: object, where: str) -> None:
    """Raises ConfigurationError unless the arguments are an async function of two arguments and a positive integer."""
    call: object = getattr(function, "__call__", None)  # noqa: B004 - objects with async call
    if not inspect.iscoroutinefunction(function) and not inspect.iscoroutinefunction(call):
        reject(f"{where}: {_with_location(function)} is not an async function")
    if (mismatch := _signature_mismatch(function, object(), object())) is not None:
        reject(f"{where}: it is called with the request and the failure, (request, failure): {mismatch}")
    if not isinstance(after, int) or isinstance(after, bool) or after < 1:
        reject(f"{where}: after={after!r}: at least 1 failure is needed")


def _with_location(function: object) -> str:
    """The function's name, file and line."""
    code: object = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return repr(function)
    return f"{code.co_qualname} ({Path(code.co_filename).name}:{code.co_firstlineno})"


def _signature_mismatch(function: Any, *arguments: object) -> str | None:
    """Why the function cannot be called with these positional arguments; None if it can, or if it has no signature."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        return str(error)
    except ValueError:
        return None  # some builtins have no signature
    return None


def _check_annotation(
    function: object,
    target: Any,
    what: str,
    kind: type[Resource] | None,
    expected: type[PeriodicRequest] | type[KeyedRequest[Any]],
) -> None:
    annotation = _annotation(function, target)
    if annotation is None:
        return
    origin, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if kind is None:
        if origin in {Request, PeriodicRequest, KeyedRequest} and origin is not expected:
            reject(
                f"{what}: it takes a {expected.__name__}, because the controller has no kind; it is annotated with "
                f"{_short_name(annotation)}"
            )
        return
    if origin in {PeriodicRequest, KeyedRequest}:
        reject(
            f"{what}: it takes a Request[{kind.__name__}]; {_short_name(annotation)} is for controllers without a kind"
        )
    if isinstance(origin, type) and issubclass(origin, Resource):
        reject(
            f"{what}: it gets a Request[{kind.__name__}], whose .object is the {kind.__name__}, and not "
            f"{_short_name(annotation)}"
        )
    if origin is Request and arguments:
        annotated = arguments[0]
        if isinstance(annotated, type) and issubclass(annotated, Resource) and not issubclass(kind, annotated):
            reject(f"{what}: it takes a Request[{annotated.__name__}], and the controller reconciles {kind.__name__}")


def _annotation(function: object, target: Any) -> Any:
    """The annotation of the only argument, or None if it cannot be evaluated."""
    try:
        name = next(iter(inspect.signature(function).parameters))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] -- callable, checked
        plain: Any = inspect.unwrap(getattr(target, "__func__", target))
        only = SimpleNamespace(__annotations__={name: plain.__annotations__[name]})
        return get_type_hints(only, globalns=plain.__globals__).get(name)
    except Exception:  # noqa: BLE001 -- evaluating an annotation runs foreign code; what cannot be evaluated is not checked
        return None


def _short_name(annotation: Any) -> str:
    """The annotation without module names."""
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    return re.sub(r"[\w.]+\.(?=\w)", "", str(annotation))
