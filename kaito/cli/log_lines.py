"""Prints log events of the framework as lines for people, on standard error.

Standard output belongs to the result of a command, which other programs read (`kaito plan -o json`).
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

from kaito.runtime.logging import configure as configure_logging

_HIDDEN: Final = frozenset({"level", "logger", "ts", "exc_info", "stack_info", "stack"})


def configure() -> None:
    """Prints warnings and errors of this process as `Warning: EVENT (NAME: VALUE, …)`.

    Warnings of the API server are printed as kubectl prints them.
    """
    configure_logging("console", "warning")  # for libraries that use `logging`
    structlog.configure(
        processors=[_line],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: _StderrLines(),
        cache_logger_on_first_use=False,
    )


def _line(_: object, level: str, event: MutableMapping[str, Any]) -> str:
    text = str(event.pop("event", ""))
    if (warning := event.pop("warning", None)) is not None:
        return f"Warning: {warning}"
    details = ", ".join(f"{name}: {value}" for name, value in event.items() if name not in _HIDDEN)
    return f"{'Warning' if level == 'warning' else 'Error'}: {text}{f' ({details})' if details else ''}"


class _StderrLines:
    """Writes each line to the current `sys.stderr`, which may have been redirected after the logger was made."""

    def msg(self, message: str) -> None:
        """Writes one line."""
        sys.stderr.write(message + "\n")
        sys.stderr.flush()

    warning = error = critical = exception = msg
