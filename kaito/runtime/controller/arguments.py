"""What is wrong with a declaration, said when it is written down and not when it runs.

Called by `Controller` and `Periodic`; every refusal is a `ConfigurationError` that names the controller and the remedy.
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
from kaito.runtime.meta import Resource
from kaito.runtime.reconcile import KeyedRequest, PeriodicRequest, Request
from kaito.runtime.source import Channel, Source
from kaito.runtime.workqueue import Backoff

_FINALIZER: Final = re.compile(
    r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)/([A-Za-z0-9][-A-Za-z0-9_.]*)"
)
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9_.]*[a-z0-9])?")

_LIMITER: Final = ("when", "forget", "failures")


def refuse(message: str) -> NoReturn:
    """Raise."""
    raise ConfigurationError(message)


def check_kind(kind: object, where: str) -> None:
    """Refuse what is not a kind."""
    if isinstance(kind, Resource):
        refuse(f"{where}: give the class {type(kind).__name__}, not one of its objects")
    if not (isinstance(kind, type) and issubclass(kind, Resource)) or not kind.kind or not kind.api_version:
        refuse(f"{where}: {kind!r} is not a kind: subclass Resource with api= and kind=")


def check_name(name: object, what: str = "controller") -> None:
    """Refuse names that cannot be labels of metrics."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        refuse(f"{what} name {name!r}: lower case letters, digits, '-', '_' and '.' only")


def check_seconds(controller: str, option: str, value: object, *, zero: bool, none: str = "") -> None:
    """Refuse what is no number of seconds. `none` says what None means, where it may be given."""
    if value is None and none:
        return
    hint = f"; use None for {none}" if none else ""
    if not isinstance(value, int | float) or isinstance(value, bool):
        refuse(f"controller {controller}: {option}={value!r} is not a number of seconds{hint}")
    if not (value >= 0 if zero else value > 0):
        least = "0 or more" if zero else "more than 0"
        refuse(f"controller {controller}: {option}={value:g}: {least} seconds are needed{hint}")


def check_limits(
    name: str,
    *,
    workers: object,
    deadline: object,
    backoff: object,
    limiter: object,
    spacing: object,
    aging_step: object,
    sync_timeout: object,
) -> None:
    """Refuse a name and limits that cannot work."""
    check_name(name)
    check_workers(name, workers)
    check_seconds(name, "deadline", deadline, zero=False, none="no limit")
    check_pace(name, backoff, limiter)
    check_seconds(name, "spacing", spacing, zero=True)
    check_seconds(name, "aging_step", aging_step, zero=False, none="strict priorities")
    check_seconds(name, "sync_timeout", sync_timeout, zero=False)


def check_open(controller: str, verb: str, *, built: bool) -> None:
    """Refuse changes of a declaration that a manager has read."""
    if built:
        refuse(
            f"controller {controller} runs already: {verb}() would change nothing. Declare everything first, or "
            f"manager.add() another controller"
        )


def check_pace(controller: str, backoff: object, limiter: object) -> None:
    """Refuse what is no backoff, no limiter, or both."""
    if backoff is not None and limiter is not None:
        refuse(f"controller {controller}: give backoff= or limiter=, not both")
    if backoff is not None and not isinstance(backoff, Backoff):
        refuse(f"controller {controller}: backoff={backoff!r}: write backoff=Backoff(base=..., cap=...)")
    if limiter is not None and not all(callable(getattr(limiter, name, None)) for name in _LIMITER):
        refuse(f"controller {controller}: limiter={limiter!r} has not all of {', '.join(_LIMITER)}: see RateLimiter")


def check_workers(controller: str, workers: object) -> None:
    """Refuse what is no number of workers."""
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        refuse(f"controller {controller}: workers={workers!r}, at least 1 is needed")


def check_finalizer(controller: str, finalizer: object) -> None:
    """Refuse a finalizer that the API server would refuse."""
    if not isinstance(finalizer, str) or not _FINALIZER.fullmatch(finalizer):
        refuse(f"controller {controller}: finalizer {finalizer!r} is not of the form domain/name")


def check_cached(controller: str, cached: object) -> None:
    """Refuse what is no list of declarations."""
    if isinstance(cached, Cached):
        refuse(f"controller {controller}: cache= takes a list: write cache=[{cached!r}]")
    for each in cast("Iterable[object]", cached):
        if not isinstance(each, Cached):
            name = each.__name__ if isinstance(each, type) else repr(each)
            refuse(f"controller {controller}: cache= takes declarations: write Cached({name}), not {name}")


def check_source(controller: str, source: object) -> None:
    """Refuse what is no source of events."""
    if not isinstance(source, Channel | Source):
        hint = ": write FunctionSource(...) around a function" if callable(source) else ""
        refuse(f"controller {controller}: receives() takes a Channel or a Source, not {source!r}{hint}")


def check_predicate(controller: str, when: object) -> None:
    """Refuse what decides nothing."""
    if when is not None and not callable(when):
        refuse(f"controller {controller}: when={when!r} is not a predicate: write when=changed({when!r}) or the like")


def check_mapper(to: object, where: str) -> None:
    """Refuse what cannot be called with an object and a view."""
    if not callable(to):
        refuse(f"{where} needs a function, not {to!r}")
    if inspect.isasyncgenfunction(to):
        refuse(f"{where}: {to!r} is an async generator: return a list of keys instead")
    if (trouble := _does_not_take(to, object(), object())) is not None:
        refuse(f"{where}: it is called with the object and a View of the cache, (obj, view): {trouble}")


def check_handler(handler: object, where: str) -> None:
    """Refuse what cannot be called with an event, a queue and a view."""
    if not callable(handler):
        refuse(f"{where} needs a function, not {handler!r}")
    if (trouble := _does_not_take(handler, object(), object(), object())) is not None:
        refuse(f"{where}: it is called with the event, the queue and a View, (event, queue, view): {trouble}")


def check_function(function: object, what: str, *, kind: type[Resource] | None, visits: bool = False) -> None:
    """Refuse what is not an async function of one argument, or of another kind's request.

    Args:
        function: what should be a reconcile, cleanup or tick function.
        what: its name in messages.
        kind: the kind whose requests it gets; None for the ticks of a periodic controller, and for visits.
        visits: it gets the visits of a keyed controller.
    """
    if inspect.iscoroutine(function):
        function.close()
        refuse(f"{what}: give the function itself, without calling it")
    if isinstance(function, type):
        refuse(f"{what}: give an async function or an object, not the class {function.__name__}")
    inner: Any = function
    while isinstance(inner, partial):
        inner = inner.func
    target = inner if inspect.isroutine(inner) else getattr(inner, "__call__", None)  # noqa: B004 - objects with async call
    if not callable(function) or not inspect.iscoroutinefunction(target):
        refuse(f"{what}: {_shown(function)} is not an async function")
    takes = "visit" if visits else "tick" if kind is None else "request"
    trouble = _does_not_take(function, object())
    if trouble is not None:
        refuse(f"{what}: it takes exactly one argument, the {takes} ({trouble})")
    _check_annotation(function, target, what, kind, KeyedRequest if visits else PeriodicRequest)


def _shown(function: object) -> str:
    """A function with the place where it is written."""
    code: object = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return repr(function)
    return f"{code.co_qualname} ({Path(code.co_filename).name}:{code.co_firstlineno})"


def _does_not_take(function: Any, *arguments: object) -> str | None:
    """Why the function cannot be called with so many positional arguments; None when it can, or nobody knows."""
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
    other: type[PeriodicRequest] | type[KeyedRequest[Any]],
) -> None:
    said = _annotation(function, target)
    if said is None:
        return
    origin, arguments = get_origin(said) or said, get_args(said)
    if kind is None:
        if origin in {Request, PeriodicRequest, KeyedRequest} and origin is not other:
            refuse(f"{what}: it takes a {other.__name__}, for there is no object; it is annotated with {_named(said)}")
        return
    if origin in {PeriodicRequest, KeyedRequest}:
        refuse(f"{what}: it takes a Request[{kind.__name__}]; {_named(said)} is for controllers without a kind")
    if isinstance(origin, type) and issubclass(origin, Resource):
        refuse(
            f"{what}: it gets a Request[{kind.__name__}], whose .object is the {kind.__name__}, and not {_named(said)}"
        )
    if origin is Request and arguments:
        told = arguments[0]
        if isinstance(told, type) and issubclass(told, Resource) and not issubclass(kind, told):
            refuse(f"{what}: it takes a Request[{told.__name__}], and the controller reconciles {kind.__name__}")


def _annotation(function: object, target: Any) -> Any:
    """What the only argument is annotated with, if that can be found out."""
    try:
        name = next(iter(inspect.signature(function).parameters))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] -- callable, checked
        plain: Any = inspect.unwrap(getattr(target, "__func__", target))
        only = SimpleNamespace(__annotations__={name: plain.__annotations__[name]})
        return get_type_hints(only, globalns=plain.__globals__).get(name)
    except Exception:  # noqa: BLE001 -- annotations are anything; what cannot be read is not checked
        return None


def _named(annotation: Any) -> str:
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    return re.sub(r"[\w.]+\.(?=\w)", "", str(annotation))
