"""Flags that the programs of this package share, and how they report errors.

Guarantees: a flag has a dash and an underscore form; a wrong flag is a ConfigurationError; a program that fails writes
one line `PROGRAM: REASON` as the last line of its log.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from kaito_oci.errors import ConfigurationError, ProgramError


class Parser(argparse.ArgumentParser):
    """Argument parser whose errors are ConfigurationErrors."""

    def __init__(self, program: str, description: str) -> None:
        super().__init__(prog=program, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raises a ConfigurationError instead of exiting."""
        raise ConfigurationError(message)

    def flag(self, name: str, **options: Any) -> None:
        """Adds `--some-name` with its underscore form."""
        self.add_argument(*dict.fromkeys((f"--{name}", f"--{name.replace('-', '_')}")), **options)

    def registry_flags(self) -> None:
        """Adds the flags of a program that uses a registry."""
        self.flag(
            "docker-config",
            type=Path,
            action="extend",
            nargs="+",
            default=[],
            help="files with credentials (Docker's config.json, or its directory); a pull tries them in order",
        )
        self.flag("plain-http", action="store_true", help="use HTTP without TLS (always on for loopback)")


def fail(program: str, error: ProgramError) -> int:
    """Writes the reason to the standard error and returns the exit code."""
    print(f"{program}: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the last line is the reason
    return error.exit_code
