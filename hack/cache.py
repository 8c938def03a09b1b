"""The folders of built programs in the user's cache, outside the working tree."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


def cache_folder(*names: str) -> Path:
    """Returns a folder below `$XDG_CACHE_HOME/kaito`, or `~/.cache/kaito`; does not create it."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root.joinpath("kaito", *names)


@contextmanager
def locked(folder: Path, name: str = ".lock") -> Generator[None]:
    """Creates a folder and holds its lock while the body runs, so that parallel test runs build once."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
