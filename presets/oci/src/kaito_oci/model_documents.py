"""Reads the small files of a model artifact and the sizes of all its files, without the weights.

Used by `kaito model inspect` and by the workspace controller, which plan a model from its config.json. Each document is
held in memory; a layer that is larger than `MAX_DOCUMENT_BYTES` is refused.
"""

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Final

from kaito_config.image_references import ImageReference

from kaito_oci.artifact_types import LICENSES, MODEL_NAME, REVISION, TAR_LAYER, TITLE, Layer, read_layers, safe_path
from kaito_oci.credentials import Credentials
from kaito_oci.errors import NotAModel, RegistryError
from kaito_oci.image_manifest import open_image
from kaito_oci.json_values import is_object
from kaito_oci.registry import CHUNK_BYTES, Registry

MAX_DOCUMENT_BYTES: Final = 32 * 2**20
"""Limit of a layer with a document. The index of the largest models has a few MiB."""

_ATTEMPTS: Final = 2
"""Attempts of a request. Few, because the callers read again later, and a registry that does not respond delays the
reads of other models."""


@dataclass(frozen=True, slots=True)
class ModelDocuments:
    """Files of a model artifact."""

    digest: str
    """Digest of the manifest."""
    name: str
    """Name of the model; empty if the artifact does not contain it."""
    revision: str
    license: str
    sizes: Mapping[str, int]
    """Bytes of every file by its path in the model directory."""
    documents: Mapping[str, bytes]
    """Contents of the wanted files that exist."""


def read_documents(
    reference: ImageReference,
    wanted: Collection[str],
    *,
    docker_configs: Sequence[Path] = (),
    credentials: Sequence[Credentials] | None = None,
    plain_http: bool = False,
) -> ModelDocuments:
    """Reads a manifest, and the wanted files of the artifact.

    Args:
        reference: the artifact.
        wanted: paths of the documents in the model directory.
        docker_configs: files with credentials.
        credentials: credentials to use instead of those in files; empty for anonymous access.
        plain_http: use HTTP without TLS.

    Raises:
        CredentialsRejected: the registry rejects all credentials.
        RegistryError: the artifact cannot be read, or is malformed.
        NotAModel: the artifact contains no files, or does not name them.
    """
    registry, manifest = open_image(
        reference, docker_configs, credentials=credentials, plain_http=plain_http, tries=_ATTEMPTS
    )
    layers = read_layers(manifest.document, reference)
    unnamed = [layer for layer in layers if not layer.name]
    if unnamed:
        raise NotAModel(
            f"{reference}: the layer {unnamed[0].digest[:19]} does not name its files: "
            "pack the model with kaito model pack"
        )
    annotations = manifest.document.get("annotations")
    annotations = annotations if is_object(annotations) else {}
    return ModelDocuments(
        digest=manifest.digest,
        name=str(annotations.get(MODEL_NAME) or annotations.get(TITLE) or ""),
        revision=str(annotations.get(REVISION) or ""),
        license=str(annotations.get(LICENSES) or ""),
        sizes={layer.name: layer.file_size for layer in layers},
        documents={layer.name: _read(registry, layer) for layer in layers if layer.name in wanted},
    )


def _read(registry: Registry, layer: Layer) -> bytes:
    """Returns the file of a layer.

    Raises:
        RegistryError: it cannot be read, is damaged or too large.
    """
    if max(layer.size, layer.file_size) > MAX_DOCUMENT_BYTES:
        raise RegistryError(f"{registry.reference}: {layer.name} has more than {MAX_DOCUMENT_BYTES} bytes")
    blob = _fetch(registry, layer)
    if not layer.is_archive:
        return blob
    try:
        if layer.compression == "gzip":
            with gzip.open(io.BytesIO(blob)) as opened:
                blob = opened.read(MAX_DOCUMENT_BYTES + 1)
        elif layer.compression:
            raise RegistryError(
                f"{registry.reference}: {layer.name} is compressed with {layer.compression}: "
                f"pack the model with kaito model pack, whose layers have the type {TAR_LAYER}"
            )
        with tarfile.open(fileobj=io.BytesIO(blob), mode="r:") as archive:
            for entry in archive:
                if not entry.isreg() or str(safe_path(entry.name, registry.reference)) != layer.name:
                    continue
                file = archive.extractfile(entry)
                if file is not None:
                    return file.read(MAX_DOCUMENT_BYTES)
    except (tarfile.TarError, EOFError, OSError, zlib.error, RecursionError) as error:
        raise RegistryError(f"{registry.reference}: the archive of {layer.name} is damaged: {error}") from error
    raise RegistryError(f"{registry.reference}: the archive of {layer.name} does not contain it")


def _fetch(registry: Registry, layer: Layer) -> bytes:
    """Returns a blob whose digest is verified."""
    content = bytearray()
    try:
        with registry.open_blob(layer.digest, 0) as opened:
            while piece := opened.stream.read(CHUNK_BYTES):
                content += piece
                if len(content) > layer.size:
                    break
    except (OSError, HTTPException) as error:
        raise RegistryError(f"{registry.reference}: {layer.name} cannot be read: {error}") from error
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != layer.digest:
        raise RegistryError(f"{registry.reference}: {layer.name} does not match its digest")
    return bytes(content)
