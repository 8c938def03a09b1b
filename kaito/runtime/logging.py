"""Structured logs: one JSON object per line on stderr, with the current reconcile in every line.

Every module gets its logger from `get_logger`, which works without configuration (controller-runtime logs nothing until
its logger is set). `Manager.run` calls `configure` with the settings. The context is in `contextvars`: every line that
is logged within a reconcile, or by a task that it started, contains `controller`, `controllerGroup`, `controllerKind`,
the object under its kind (`"Pod": {"namespace": ..., "name": ...}`), `namespace`, `name` and `reconcileID`. Lines of
libraries that use `logging` have the same format.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Generator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple, cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor

from kaito.runtime.clock import LoopClock, SystemClock
from kaito.runtime.meta import ObjectKey

BoundLogger = FilteringBoundLogger
"""A logger: `debug`, `info`, `warning`, `error` and `exception` with an event and fields, and `bind`."""

LogFormat = Literal["json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]

_NUMBERS: dict[LogLevel, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def get_logger(name: str, **values: object) -> BoundLogger:
    """A logger whose lines contain `logger=name` and the values."""
    return cast("BoundLogger", structlog.get_logger(name, **values))


def _new_id() -> str:
    """A random UUID (RFC 9562, version 4), three times as fast as `uuid.uuid4`: every reconcile needs one."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


@contextmanager
def reconcile_context(controller: str, kind: str, key: object, *, group: str = "") -> Generator[str]:
    """Adds the fields of a reconcile to every line logged within; yields the new reconcile ID.

    The fields have controller-runtime's names, for existing log queries. `kind` is empty for a controller without one.
    """
    reconcile = _Reconcile(controller, group, kind, key, _new_id())
    if merge_reconcile in structlog.get_config()["processors"]:
        token = _current.set(reconcile)
        try:
            yield reconcile.id
        finally:
            _current.reset(token)
        return
    # The program has a configuration of its own, or none. As `structlog.contextvars.bound_contextvars`, which also
    # copies the whole context.
    tokens = structlog.contextvars.bind_contextvars(**reconcile.fields())
    try:
        yield reconcile.id
    finally:
        structlog.contextvars.reset_contextvars(**tokens)


class _Reconcile(NamedTuple):
    """The reconcile that runs; its fields are made when a line is logged."""

    controller: str
    group: str
    kind: str
    key: object
    id: str

    def fields(self) -> dict[str, object]:
        values: dict[str, object] = {"controller": self.controller, "reconcileID": self.id}
        if self.kind:
            values |= {"controllerGroup": self.group, "controllerKind": self.kind}
        if isinstance(self.key, ObjectKey):
            return values | {"namespace": self.key.namespace, "name": self.key.name}
        return values | {"name": str(self.key)}


_current: ContextVar[_Reconcile | None] = ContextVar("reconcile", default=None)
"""One variable instead of one per field: setting seven takes 20 us."""


def merge_reconcile(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Adds the fields of the current reconcile to a line: a processor of structlog, part of `configure`.

    In a configuration of structlog without it, the fields are bound with `structlog.contextvars`.
    """
    reconcile = _current.get()
    return event if reconcile is None else {**reconcile.fields(), **event}


def configure(log_format: LogFormat = "json", level: LogLevel = "info") -> None:
    """Sets format and level for the whole process, including libraries that use `logging`.

    Args:
        log_format: `json`, or `console` for terminals.
        level: the minimum level.
    """
    _configure_structlog(log_format, _NUMBERS[level])
    handler = _StderrHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_context(),
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(log_format)],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(_NUMBERS[level], logging.WARNING) if level != "debug" else logging.INFO)


def _configure_structlog(log_format: LogFormat, level: int) -> None:
    structlog.configure(
        processors=[*_context(), *_renderers(log_format)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_StderrLines,
        cache_logger_on_first_use=False,
    )


def _context() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        merge_reconcile,
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        _stamp,
        structlog.processors.StackInfoRenderer(),
    ]


def _stamp(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Adds the time in UTC; with a simulated clock, the simulated time."""
    try:
        simulated = bool(getattr(asyncio.get_running_loop(), "simulates_time", False))
    except RuntimeError:
        simulated = False
    now = (LoopClock() if simulated else SystemClock()).now()
    event["timestamp"] = f"{now:%Y-%m-%dT%H:%M:%S.%f}Z"
    return event


def _renderers(log_format: LogFormat) -> list[Processor]:
    if log_format == "console":
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    return [
        structlog.processors.format_exc_info,
        _kubernetes_names,
        structlog.processors.JSONRenderer(default=str),
    ]


def _kubernetes_names(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Renames and orders the fields as in logs of Kubernetes components: `ts`, `level`, `msg`, and the object by its
    kind."""
    kind = event.get("controllerKind")
    if kind and "namespace" in event:
        event.setdefault(kind, {"namespace": event["namespace"], "name": event.get("name", "")})
    first = {"ts": event.pop("timestamp", ""), "level": event.pop("level", ""), "msg": event.pop("event", "")}
    return first | dict(event)


class _StderrLines:
    """Writes each line to the current `sys.stderr`, which may have been redirected after the logger was made."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, message: str) -> None:
        """Writes one line."""
        sys.stderr.write(message + "\n")
        sys.stderr.flush()

    debug = info = warning = warn = error = critical = fatal = exception = log = msg


class _StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line; a failure to format is reported by `logging` itself."""
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - the boundary of `logging`, which reports the broken record
            self.handleError(record)


if not structlog.is_configured():
    _configure_structlog("json", logging.INFO)
