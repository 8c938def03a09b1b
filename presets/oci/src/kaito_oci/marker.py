"""The marker of a completely pulled model directory: `.kaito-model.json`, written last.

A directory is complete if the marker names the digest of the artifact and every file has the size that it lists.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kaito_oci.download import sync
from kaito_oci.json_values import is_object

MARKER: Final = ".kaito-model.json"


@dataclass(frozen=True, slots=True)
class Marker:
    """What a directory contains."""

    reference: str
    digest: str
    """Digest of the image's manifest."""
    files: Mapping[str, int]
    """Size by path."""


def read_marker(directory: Path) -> Marker | None:
    """Returns the marker, or None if there is none or a file of it is missing or has another size."""
    try:
        document: Any = json.loads((directory / MARKER).read_bytes())
        files = document["files"]
        if not is_object(files):
            return None
        found = Marker(str(document["reference"]), str(document["digest"]), {str(k): int(v) for k, v in files.items()})
        complete = all((directory / name).stat().st_size == size for name, size in found.files.items())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if complete else None


def write_marker(directory: Path, marker: Marker) -> None:
    """Writes the marker, and makes it and the directory durable."""
    document = {"reference": marker.reference, "digest": marker.digest, "files": dict(marker.files)}
    partial = directory / f"{MARKER}.partial"
    partial.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    sync(partial)
    partial.replace(directory / MARKER)
    sync(directory)
