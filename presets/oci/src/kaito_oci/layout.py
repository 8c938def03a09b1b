"""Stores packed models in an OCI image layout: a folder with `oci-layout`, `index.json` and `blobs/sha256/`.

`kaito model pack` writes one, by default in the user's data folder, and `kaito model push` reads it; ORAS, skopeo and
buildah read it too. A process that is killed leaves a valid layout: blobs are renamed into place, then the index.
"""

import fcntl
import json
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from kaito_oci.download import sync
from kaito_oci.errors import InsufficientDisk, NotAModel
from kaito_oci.json_values import is_list, is_object
from kaito_oci.model_artifact import Artifact, Blob
from kaito_oci.model_files import read_json
from kaito_oci.progress import size_text
from kaito_oci.registry import INDEX

REF_NAME: Final = "org.opencontainers.image.ref.name"
BLOBS: Final = "blobs/sha256"


def default_store(environment: Mapping[str, str] = os.environ) -> Path:
    """Returns the folder of packed models: `$XDG_DATA_HOME/kaito/models`."""
    data = environment.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "kaito" / "models"


def is_layout(path: Path) -> bool:
    """Returns whether a folder is an image layout."""
    return (path / "oci-layout").is_file() and (path / "index.json").is_file()


def check_free_disk(folder: Path, needed: int) -> None:
    """Checks that `needed` bytes fit on the disk of `folder`, with a reserve of 64 MiB.

    Raises:
        InsufficientDisk: they do not.
    """
    state = os.statvfs(folder)
    free = state.f_bavail * state.f_frsize
    if needed and free < needed + 64 * 2**20:
        raise InsufficientDisk(
            f"{folder} has {size_text(free)} of free disk space, {size_text(needed)} are needed and 64 MiB in reserve"
        )


def write_layout(artifact: Artifact, folder: Path, name: str, *, report: Callable[[str, int], None]) -> str:
    """Writes an artifact as `name`; returns the digest of its index. An earlier artifact of that name is replaced.

    Raises:
        InsufficientDisk: the free disk space is smaller than the artifact.
        NotAModel: a file was changed while it was read.
    """
    blobs = folder / BLOBS
    blobs.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        everything = (*artifact.blobs, *artifact.manifests, artifact.index)
        missing = [blob for blob in everything if not _path(folder, blob.digest).is_file()]
        check_free_disk(folder, sum(blob.size for blob in missing))
        for blob in everything:
            if blob in missing:
                _write_blob(blob, folder, report)
            report(blob.label or blob.digest, blob.size)
        entry = {
            "mediaType": INDEX,
            "digest": artifact.index.digest,
            "size": artifact.index.size,
            "annotations": {REF_NAME: name},
        }
        entries = [each for each in _entries(folder) if each.get("annotations", {}).get(REF_NAME) != name]
        _replace(folder / "oci-layout", {"imageLayoutVersion": "1.0.0"})
        entries.append(entry)
        _replace(folder / "index.json", {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
        _remove_unreferenced(folder, entries)
    return artifact.index.digest


def stored_artifact(folder: Path, name: str) -> tuple[list[Blob], list[Blob], Blob]:
    """Returns the blobs, the manifests and the top document of the artifact `name` of a layout.

    Raises:
        NotAModel: the layout does not contain the name, or a blob is missing.
    """
    names = {str(each.get("annotations", {}).get(REF_NAME)): each for each in _entries(folder)}
    if name not in names:
        known = ", ".join(sorted(names)) or "nothing"
        raise NotAModel(f"{folder} contains {known}, not {name}; run `kaito model pack` first")
    top = _stored(folder, names[name])
    document = read_json(_path(folder, top.digest))
    listed = document.get("manifests")
    manifests = [_stored(folder, entry) for entry in listed] if is_list(listed) else []
    blobs: dict[str, Blob] = {}
    for manifest in manifests or [top]:
        inner = read_json(_path(folder, manifest.digest))
        for entry in (*inner.get("layers", []), inner.get("config", {})):
            blob = _stored(folder, entry)
            blobs[blob.digest] = blob
    return list(blobs.values()), manifests, top


def _stored(folder: Path, entry: Any) -> Blob:
    digest, size = (entry.get("digest"), entry.get("size")) if is_object(entry) else (None, None)
    if not isinstance(digest, str) or not isinstance(size, int):
        raise NotAModel(f"{folder}: a descriptor of the layout is malformed")
    path = _path(folder, digest)
    if not path.is_file() or path.stat().st_size != size:
        raise NotAModel(f"{folder}: the blob {digest} is missing or incomplete; pack the model again")
    annotations: Any = entry.get("annotations")
    label = str(annotations.get("org.cncf.model.filepath", "")) if is_object(annotations) else ""
    return Blob(digest, size, path, label)


def _path(folder: Path, digest: str) -> Path:
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or not value.isalnum():
        raise NotAModel(f"{folder}: {digest[:80]!r} is not a SHA-256 digest")
    return folder / BLOBS / value


def _entries(folder: Path) -> list[dict[str, Any]]:
    file = folder / "index.json"
    found: Any = read_json(file).get("manifests") if file.is_file() else None
    return [entry for entry in found if is_object(entry)] if is_list(found) else []


def _write_blob(blob: Blob, folder: Path, report: Callable[[str, int], None]) -> None:
    target = _path(folder, blob.digest)
    partial = target.with_suffix(".partial")
    done = 0
    with partial.open("wb") as file:
        for piece in blob.pieces():
            file.write(piece)
            done += len(piece)
            report(blob.label or blob.digest, done)
    if done != blob.size:
        partial.unlink()
        raise NotAModel(f"{blob.label} was changed while it was read; pack the model again")
    sync(partial)
    partial.replace(target)


def _replace(file: Path, document: Mapping[str, Any]) -> None:
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    sync(partial)
    partial.replace(file)


def _remove_unreferenced(folder: Path, entries: list[dict[str, Any]]) -> None:
    """Removes the blobs that no artifact of the layout contains, such as those of a replaced one."""
    referenced: set[str] = set()
    for entry in entries:
        name = entry.get("annotations", {}).get(REF_NAME)
        try:
            blobs, manifests, top = stored_artifact(folder, str(name))
        except NotAModel:
            return  # another program has written it; nothing is removed
        referenced |= {blob.digest.removeprefix("sha256:") for blob in (*blobs, *manifests, top)}
    for path in (folder / BLOBS).iterdir():
        if path.name not in referenced:
            path.unlink()


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
