"""Checks of what a container gives its process: a directory for temporary files, and files that it may read.

Called by the programs before they import anything heavy, because the machine-learning libraries report both faults in
words that point elsewhere.
"""

import os
import tempfile
from pathlib import Path

from kaito_presets.errors import ConfigurationError, ModelLoadError


def check_temporary_directory() -> None:
    """Require a directory for temporary files.

    Raises:
        ConfigurationError: there is none; torch would fail while it is imported, with an unrelated message.
    """
    try:
        with tempfile.TemporaryFile():
            pass
    except OSError as error:
        raise ConfigurationError(
            f"no writable directory for temporary files ({error.strerror or error}): /tmp is missing, read-only or "
            "full; mount an emptyDir volume at /tmp, or set TMPDIR to a writable directory"
        ) from error


def check_readable(path: Path) -> None:
    """Require that every file of a directory can be read; a path that does not exist is left to the caller.

    Raises:
        ModelLoadError: names the file, the user of this process, and the remedy.
    """
    try:
        for entry in sorted(path.iterdir()) if path.is_dir() else ():
            if entry.is_file():
                entry.open("rb").close()
    except PermissionError as error:
        raise ModelLoadError(
            f"no permission to read {error.filename or path}: this process runs as user {os.getuid()}, group "
            f"{os.getgid()}; make the files readable (chmod -R a+rX {path}) or set runAsUser or fsGroup in the pod's "
            "securityContext"
        ) from error
    except OSError as error:
        raise ModelLoadError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error
