"""Builds programs with Go into a folder of the user's cache, once."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from hack.cache import locked
from kaito.runtime.testing.envtest.binaries import Unavailable


def build_once(folder: Path, is_complete: Callable[[], bool], build: Callable[[], None], *, without_go: str) -> None:
    """Calls `build` if the folder is not complete, and not twice at the same time.

    Raises:
        Unavailable: something is missing, and Go is not installed (with the message `without_go`).
    """
    if is_complete():
        return
    if shutil.which("go") is None:
        raise Unavailable(without_go)
    with locked(folder):
        if not is_complete():
            build()


def go(*arguments: str, folder: Path, purpose: str) -> str:
    """Runs Go in a folder of a module and returns its output; `purpose` names what is built.

    Raises:
        Unavailable: Go failed.
    """
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}
    command = ["go", *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise Unavailable(f"building {purpose} with Go failed: {result.stderr.strip()[-400:]}")
    return result.stdout
