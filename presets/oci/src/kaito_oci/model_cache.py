"""Keeps models in a folder that the pods of a node share, so that a second pod transfers nothing.

    DIR/sha256-HEX/    a completely pulled model, by the digest of its manifest, with its lock (see `model_pull`)
    DIR/references/    the digest of each reference that was pulled, for a restart while the registry cannot be reached

The manifest is requested from the registry first, with the credentials of the pod: a pod that may not pull the model
does not get it from the cache, and a moved tag is noticed. Entries are never removed: remove DIR/sha256-HEX when
no pod uses it.
"""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from kaito_config.image_references import ImageReference

from kaito_oci.download import remove_tree
from kaito_oci.errors import CredentialsRejected, ProgramError, RegistryError
from kaito_oci.marker import MARKER, Marker, read_marker, write_marker
from kaito_oci.model_pull import PullOptions, fill_directory, resolve
from kaito_oci.progress import Progress, size_text

log = logging.getLogger(__name__)


def entry_directory(cache: Path, digest: str) -> Path:
    """Returns the folder of a model in the cache."""
    return cache / digest.replace(":", "-")


def pull_cached(
    reference: ImageReference,
    directory: Path,
    cache: Path,
    progress: Progress,
    options: PullOptions = PullOptions(),
) -> Marker:
    """Pulls a model into the cache, unless it is there, and links it to `directory`.

    A directory that does not exist becomes a symbolic link to the entry. An existing one, such as the mount point of a
    volume, gets hard links; across file systems or mounts symbolic links, for which the reading container must mount
    the cache at the same path.

    Raises:
        ProgramError: see `kaito_oci.errors`.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProgramError(f"the cache {cache} cannot be written: {error}") from error
    try:
        registry, manifest = resolve(reference, options)
    except CredentialsRejected:
        raise
    except RegistryError as error:
        marker = _known(cache, reference)
        if marker is None:
            raise
        log.warning("%s; using the copy in %s", error, cache)
    else:
        entry = entry_directory(cache, manifest.digest)
        marker = fill_directory(registry, manifest, entry, progress, options)
        _remember(cache, reference, manifest.digest)
    try:
        link_model(entry_directory(cache, marker.digest), directory, marker, str(reference))
    except OSError as error:
        raise ProgramError(f"{directory} cannot be linked to the cache {cache}: {error}") from error
    progress.set_phase("complete", f"{size_text(sum(marker.files.values()))} of {reference} are in {directory}")
    return marker


def link_model(entry: Path, directory: Path, marker: Marker, reference: str) -> None:
    """Makes the files of a cache entry available in `directory`."""
    if directory.is_symlink() or not directory.exists():
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = directory.with_name(f".kaito-link-{directory.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(entry.resolve(), target_is_directory=True)
        temporary.replace(directory)
        return
    previous = read_marker(directory)
    (directory / MARKER).unlink(missing_ok=True)
    for name in previous.files if previous else ():
        if name not in marker.files:
            (directory / name).unlink(missing_ok=True)
    for name in marker.files:
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_tree(target)
        try:
            os.link(entry / name, target)
        except OSError:
            target.symlink_to((entry / name).resolve())
    write_marker(directory, Marker(reference, marker.digest, marker.files))


def _reference_file(cache: Path, reference: ImageReference) -> Path:
    return cache / "references" / f"{hashlib.sha256(str(reference).encode()).hexdigest()}.json"


def _remember(cache: Path, reference: ImageReference, digest: str) -> None:
    file = _reference_file(cache, reference)
    try:
        file.parent.mkdir(exist_ok=True)
        partial = file.with_name(f"{file.name}.{os.getpid()}")
        partial.write_text(json.dumps({"reference": str(reference), "digest": digest}) + "\n")
        partial.replace(file)
    except OSError as error:
        log.warning("%s cannot be written: %s", file, error)


def _known(cache: Path, reference: ImageReference) -> Marker | None:
    try:
        found: Any = json.loads(_reference_file(cache, reference).read_bytes())
        marker = read_marker(entry_directory(cache, str(found["digest"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return marker
