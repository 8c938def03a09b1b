"""Checks the file systems of the container: a writable directory for temporary files, readable model files.

The programs call these checks before they import torch, because torch and transformers report both problems with
messages about something else.
"""

import os
import tempfile
from pathlib import Path

from kaito_presets.errors import ConfigurationError, ModelLoadError


def check_temporary_directory() -> None:
    """Requires a writable directory for temporary files; `import torch` fails without one.

    Raises:
        ConfigurationError: no such directory exists.
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
    """Requires that every file in the directory `path` can be read; accepts a path that does not exist.

    Raises:
        ModelLoadError: a file cannot be read; the message names it, the user of this process, and the remedy.
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
