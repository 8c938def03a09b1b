"""Pushes and pulls adapter images: images with `/data/adapter_config.json` and `/data/adapter_model.safetensors`.

Used by the tuning job, `kaito-push-adapter` and `kaito-pull-adapter`. Packing is reproducible: the same files have the
same digest, because entries are sorted, owned by root and without times. `layers` unpacks.
"""

import gzip
import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from kaito_config.image_references import ImageReference

from kaito_oci.credentials import find_credentials
from kaito_oci.errors import NotAnAdapter, RegistryError
from kaito_oci.image_manifest import open_image
from kaito_oci.json_values import is_list
from kaito_oci.layers import ImageTree, apply_layer
from kaito_oci.registry import MANIFEST, FetchedManifest, Registry

__all__ = ["apply_layer", "check_push", "pack", "pull_image", "push_adapter"]

CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
REQUIRED: Final = ("adapter_config.json", "adapter_model.safetensors")
OPTIONAL: Final = ("kaito_adapter.json", "README.md")


def push_adapter(
    directory: Path,
    reference: ImageReference,
    *,
    docker_configs: Sequence[Path] = (),
    plain_http: bool = False,
    annotations: Mapping[str, str] | None = None,
) -> str:
    """Packs the adapter in `directory` and pushes it; returns the digest of the manifest.

    Raises:
        NotAnAdapter: the directory lacks a required file.
        CredentialsRejected: the registry rejects the credentials.
        RegistryError: the push failed.
    """
    missing = [name for name in REQUIRED if not (directory / name).is_file()]
    if missing:
        raise NotAnAdapter(f"{directory} is not an adapter directory: {', '.join(missing)} missing")
    registry = _registry(reference, docker_configs, plain_http=plain_http)
    with tempfile.TemporaryDirectory() as scratch:
        layer = Path(scratch) / "layer.tar.gz"
        diff_id, digest = pack(directory, layer)
        config = _config(diff_id)
        config_digest = "sha256:" + hashlib.sha256(config).hexdigest()
        registry.push_blob(layer, digest, layer.stat().st_size)
        registry.push_blob(config, config_digest, len(config))
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG_TYPE, "digest": config_digest, "size": len(config)},
            "layers": [{"mediaType": LAYER_TYPE, "digest": digest, "size": layer.stat().st_size}],
            "annotations": dict(sorted((annotations or {}).items())),
        }
        return registry.push_manifest(json.dumps(manifest, separators=(",", ":")).encode(), MANIFEST)


def check_push(reference: ImageReference, *, docker_configs: Sequence[Path] = (), plain_http: bool = False) -> None:
    """Checks that the registry accepts a push to `reference`, without storing anything.

    Raises:
        ConfigurationError: the credentials cannot be read.
        CredentialsRejected: the registry rejects the credentials.
        RegistryError: the registry rejects the push, or cannot be reached after retries.
    """
    _registry(reference, docker_configs, plain_http=plain_http).check_push()


def _registry(reference: ImageReference, docker_configs: Sequence[Path], *, plain_http: bool) -> Registry:
    credentials = find_credentials(reference, docker_configs)
    return Registry(reference, credentials[0] if credentials else None, plain_http=plain_http)


def pack(directory: Path, target: Path) -> tuple[str, str]:
    """Writes the compressed layer to `target`; returns the digests of the plain and the compressed archive."""
    plain, packed = hashlib.sha256(), hashlib.sha256()
    with target.open("wb") as raw:
        compressed = gzip.GzipFile(filename="", mode="wb", fileobj=_Hashing(raw, packed), mtime=0)
        with compressed, tarfile.open(fileobj=_Hashing(compressed, plain), mode="w|") as archive:
            folder = tarfile.TarInfo("data")
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
            for name in sorted((*REQUIRED, *OPTIONAL)):
                if not (directory / name).is_file():
                    continue
                entry = tarfile.TarInfo(f"data/{name}")
                entry.size, entry.mode = (directory / name).stat().st_size, 0o644
                with (directory / name).open("rb") as file:
                    archive.addfile(entry, file)
    return f"sha256:{plain.hexdigest()}", f"sha256:{packed.hexdigest()}"


def pull_image(
    reference: ImageReference,
    directory: Path,
    *,
    docker_configs: Sequence[Path] = (),
    plain_http: bool = False,
    path: str = "/data",
    digest_file: Path | None = None,
) -> list[str]:
    """Writes the files of the image below `path` to `directory`; returns their names.

    `digest_file` receives the digest of the image after all files are written, so that it marks a complete directory.
    The credentials of each Docker configuration are tried in order, then anonymous access.

    Raises:
        NotAnAdapter: the image contains no file below `path`.
        CredentialsRejected: the registry rejects all credentials.
        RegistryError: the image cannot be pulled or unpacked.
    """
    registry, manifest = open_image(reference, docker_configs, plain_http=plain_http)
    layers = _layers(manifest, reference)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}.") as scratch:
        tree = Path(scratch) / "tree"
        tree.mkdir()
        blob = Path(scratch) / "layer"
        content = ImageTree(tree, path)
        for layer in layers:
            registry.pull_blob(str(layer["digest"]), blob)
            with _decompressed(blob, str(layer.get("mediaType", ""))) as stream:
                content.apply(stream)
        unresolved = content.resolve_links()
        if unresolved:
            raise RegistryError(
                f"{reference}: cannot write {path}: {'; '.join(unresolved)}; use regular files in the image"
            )
        names = sorted(str(file.relative_to(tree)) for file in tree.rglob("*") if file.is_file())
        if not names:
            raise NotAnAdapter(f"{reference} contains no file below {path}")
        _move_into_place(tree, directory)
    if digest_file is not None:
        partial = digest_file.with_name(f".{digest_file.name}")
        partial.write_text(f"{manifest.digest}\n", encoding="ascii")
        partial.rename(digest_file)
    return names


def _layers(manifest: FetchedManifest, reference: ImageReference) -> list[dict[str, Any]]:
    layers = manifest.document.get("layers")
    if not is_list(layers):
        raise RegistryError(f"{reference} has a manifest without layers ({manifest.media_type or 'unknown type'})")
    return layers


def _decompressed(blob: Path, media_type: str) -> IO[bytes]:
    if "zstd" in media_type:
        raise RegistryError(f"layers of type {media_type} are not supported; build the image with gzip layers")
    with blob.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(blob, "rb") if packed else blob.open("rb")  # type: ignore[return-value]  # GzipFile is an IO[bytes]


def _move_into_place(tree: Path, directory: Path) -> None:
    """Moves `tree` to `directory`: by renaming, or file by file if it exists, because a mount point cannot be
    replaced."""
    if not directory.exists():
        tree.rename(directory)
        return
    for file in sorted(tree.rglob("*")):
        target = directory / file.relative_to(tree)
        if file.is_dir():
            target.mkdir(exist_ok=True)
        else:
            shutil.copyfile(file, target)


def _config(diff_id: str) -> bytes:
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "kaito-push-adapter"}],
    }
    return json.dumps(document, separators=(",", ":")).encode()


class _Hashing(io.RawIOBase):
    """Writes to a file and updates a digest with the written bytes."""

    def __init__(self, inner: IO[bytes] | gzip.GzipFile, digest: Any) -> None:
        self._inner = inner
        self._digest = digest

    def writable(self) -> bool:
        """Returns True."""
        return True

    def write(self, data: Any) -> int:
        """Updates the digest and writes to the file."""
        self._digest.update(data)
        return self._inner.write(data)

    def flush(self) -> None:
        """Flushes the file."""
        if not self._inner.closed:
            self._inner.flush()
