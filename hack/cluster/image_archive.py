"""Writes an OCI image archive with one layer, without a container tool."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from typing import BinaryIO

_TYPE = "application/vnd.oci.image"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write(target: BinaryIO, name: str, files: Mapping[str, bytes], entrypoint: Sequence[str] = ()) -> None:
    """Writes an archive that `ctr images import` accepts.

    Args:
        target: Stream of the archive.
        name: Reference of the image.
        files: Content by path in the image; every file is executable.
        entrypoint: Command of the image.
    """
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as content:
        for path, data in files.items():
            _add(content, path, data, 0o755)
    with tarfile.open(fileobj=target, mode="w|") as archive:
        rootfs = _blob(archive, f"{_TYPE}.layer.v1.tar", layer.getvalue())
        configuration = {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint)},
            "rootfs": {"type": "layers", "diff_ids": [rootfs["digest"]]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{_TYPE}.manifest.v1+json",
            "config": _blob(archive, f"{_TYPE}.config.v1+json", json.dumps(configuration).encode()),
            "layers": [rootfs],
        }
        entry = _blob(archive, f"{_TYPE}.manifest.v1+json", json.dumps(manifest).encode())
        entry["annotations"] = {"io.containerd.image.name": name}
        _add(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        _add(archive, "index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())


def _blob(archive: tarfile.TarFile, media_type: str, data: bytes) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    _add(archive, f"blobs/sha256/{digest}", data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))
