"""Structured logs: one JSON object a line on stderr, with the reconcile at hand in every line.

Every module takes its logger from `get_logger`, which works without any set-up (controller-runtime stays silent until
its logger is set). `Manager.run` calls `configure` with the settings. Context travels in `contextvars`: a line logged
deep inside a reconcile, or by a task it started, carries `controller`, `controllerGroup`, `controllerKind`, the object
under its kind (`"Pod": {"namespace": ..., "name": ...}`), `namespace`, `name` and `reconcileID`.
Lines of libraries that use `logging` come out in the same form.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Generator, MutableMapping
from contextlib import contextmanager
from typing import Any, Literal, cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor

from kaito.runtime.clock import LoopClock, SystemClock
from kaito.runtime.meta import ObjectKey

BoundLogger = FilteringBoundLogger
"""What `get_logger` returns: `debug`, `info`, `warning`, `error`, `exception` with a text and key/values; `bind`."""

LogFormat = Literal["json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]

_NUMBERS: dict[LogLevel, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def get_logger(name: str, **values: object) -> BoundLogger:
    """A logger whose lines carry `logger=name` and the values."""
    return cast("BoundLogger", structlog.get_logger(name, **values))


def _new_id() -> str:
    """A random UUID (RFC 9562, version 4), in a third of the time of `uuid.uuid4`: every reconcile takes one."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


@contextmanager
def reconcile_context(controller: str, kind: str, key: object, *, group: str = "") -> Generator[str]:
    """Put the reconcile's identity into every line logged inside; yields the new reconcile id.

    Names as in controller-runtime, so that existing log queries keep working. `kind` is empty for a controller without
    one.
    """
    reconcile_id = _new_id()
    values: dict[str, object] = {"controller": controller, "reconcileID": reconcile_id}
    if kind:
        values |= {"controllerGroup": group, "controllerKind": kind}
    if isinstance(key, ObjectKey):
        values |= {"namespace": key.namespace, "name": key.name}
    else:
        values["name"] = str(key)
    # What `structlog.contextvars.bound_contextvars` does, without reading the whole context first.
    tokens = structlog.contextvars.bind_contextvars(**values)
    try:
        yield reconcile_id
    finally:
        structlog.contextvars.reset_contextvars(**tokens)


def configure(log_format: LogFormat = "json", level: LogLevel = "info") -> None:
    """Choose form and level for the whole process, libraries that use `logging` included.

    Args:
        log_format: `json` for machines, `console` for people.
        level: anything less important is dropped.
    """
    _configure_structlog(log_format, _NUMBERS[level])
    handler = _StderrHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_context(),
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_form(log_format)],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(_NUMBERS[level], logging.WARNING) if level != "debug" else logging.INFO)


def _configure_structlog(log_format: LogFormat, level: int) -> None:
    structlog.configure(
        processors=[*_context(), *_form(log_format)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_StderrLines,
        cache_logger_on_first_use=False,
    )


def _context() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        _stamp,
        structlog.processors.StackInfoRenderer(),
    ]


def _stamp(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The moment, in UTC; that of the simulation for what is logged in simulated time."""
    try:
        simulated = bool(getattr(asyncio.get_running_loop(), "simulates_time", False))
    except RuntimeError:
        simulated = False
    now = (LoopClock() if simulated else SystemClock()).now()
    event["timestamp"] = f"{now:%Y-%m-%dT%H:%M:%S.%f}Z"
    return event


def _form(log_format: LogFormat) -> list[Processor]:
    if log_format == "console":
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    return [
        structlog.processors.format_exc_info,
        _kubernetes_names,
        structlog.processors.JSONRenderer(default=str),
    ]


def _kubernetes_names(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """`ts`, `level`, `msg` first, and a reconcile's object under its kind: the keys that readers of Kubernetes
    components' logs know."""
    kind = event.get("controllerKind")
    if kind and "namespace" in event:
        event.setdefault(kind, {"namespace": event["namespace"], "name": event.get("name", "")})
    first = {"ts": event.pop("timestamp", ""), "level": event.pop("level", ""), "msg": event.pop("event", "")}
    return first | dict(event)


class _StderrLines:
    """Writes each line to the current `sys.stderr` at once, so that redirections made later are honored."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, message: str) -> None:
        """Write one line."""
        sys.stderr.write(message + "\n")
        sys.stderr.flush()

    debug = info = warning = warn = error = critical = fatal = exception = log = msg


class _StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; a failure to format is reported by `logging` itself."""
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - the boundary of `logging`: its own way to report a broken record
            self.handleError(record)


if not structlog.is_configured():
    _configure_structlog("json", logging.INFO)
