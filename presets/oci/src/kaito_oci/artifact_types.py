"""Media types and annotations of model artifacts, and the reading of a manifest's layers.

Two formats are read. Kaito's own: an ordinary OCI image with one layer for each file, each an uncompressed tar archive
with one entry. ModelPack (https://github.com/modelpack/model-spec), the format of the artifacts that upstream Kaito
publishes: raw or archived files of type `application/vnd.cncf.model.*`. Artifacts that ORAS has pushed are read too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, Literal

from kaito_oci.errors import NotAModel, RegistryError
from kaito_oci.json_values import is_list, is_object

IMAGE_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
TAR_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"

TITLE: Final = "org.opencontainers.image.title"
LICENSES: Final = "org.opencontainers.image.licenses"
REVISION: Final = "org.opencontainers.image.revision"
SOURCE: Final = "org.opencontainers.image.source"
FILE_PATH: Final = "org.cncf.model.filepath"
"""ModelPack's annotation of a layer: the path of its file in the model directory."""
FILE_SIZE: Final = "sh.kaito.file.size-bytes"
MODEL_NAME: Final = "sh.kaito.model.name"
MODEL_ARCHITECTURE: Final = "sh.kaito.model.architecture"
MODEL_DTYPE: Final = "sh.kaito.model.dtype"
MODEL_PARAMETERS: Final = "sh.kaito.model.parameters"
MODEL_CONTEXT: Final = "sh.kaito.model.context-tokens"
MODEL_QUANTIZATION: Final = "sh.kaito.model.quantization"
MODEL_SIZE: Final = "sh.kaito.model.size-bytes"
MODEL_WEIGHTS: Final = "sh.kaito.model.weights-bytes"

RESERVED: Final = ".kaito-"
"""Prefix of the files that a pull keeps beside the model: marker, lock, progress, partial downloads."""

MAX_LAYERS: Final = 10_000
MAX_NAME_CHARACTERS: Final = 4096

Compression = Literal["", "gzip", "zstd"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an artifact."""

    digest: str
    size: int
    """Bytes of the blob."""
    is_archive: bool
    """A tar archive; else the blob is the file."""
    compression: Compression
    name: str
    """Path of the file, relative to the model directory; empty if only the archive contains it."""
    file_size: int
    """Bytes of the file; the size of the blob if they are not known."""


def read_layers(document: Mapping[str, Any], reference: object) -> list[Layer]:
    """Reads the layers of a manifest.

    Raises:
        RegistryError: the manifest is malformed, or a path is outside the model directory.
        NotAModel: the manifest has no layers.
    """
    entries = document.get("layers")
    if not is_list(entries) or len(entries) > MAX_LAYERS:
        raise RegistryError(f"{reference}: the manifest has no list of at most {MAX_LAYERS} layers")
    layers = [_read_layer(entry, reference) for entry in entries]
    if not layers:
        raise NotAModel(f"{reference} contains no files")
    return layers


def _read_layer(entry: Any, reference: object) -> Layer:
    digest, size = (entry.get("digest"), entry.get("size")) if is_object(entry) else (None, None)
    if not isinstance(digest, str) or not digest.startswith("sha256:") or not isinstance(size, int) or size < 0:
        raise RegistryError(f"{reference}: a layer has no sha256 digest or no size: {str(entry)[:200]}")
    hexadecimal = digest.removeprefix("sha256:")
    if len(hexadecimal) != 64 or set(hexadecimal) - set("0123456789abcdef"):
        raise RegistryError(f"{reference}: a layer has the digest {digest[:80]!r}, which is not a SHA-256 digest")
    media_type = str(entry.get("mediaType", ""))
    annotations = entry.get("annotations")
    annotations = annotations if is_object(annotations) else {}
    is_archive = "tar" in media_type.rpartition("/")[2].replace("+", ".").split(".")
    name = str(annotations.get(FILE_PATH) or annotations.get(TITLE) or "")
    if name:
        name = str(safe_path(name, reference))
    if not is_archive and not name:
        raise RegistryError(f"{reference}: the layer {digest[:19]} of type {media_type} has no file name")
    compression: Compression = "zstd" if "zstd" in media_type else "gzip" if "gzip" in media_type else ""
    if compression and not is_archive:
        raise RegistryError(f"{reference}: {name} has the type {media_type}, which is not supported")
    return Layer(digest, size, is_archive, compression, name, _file_size(annotations, size))


def _file_size(annotations: Mapping[str, Any], default: int) -> int:
    text = str(annotations.get(FILE_SIZE, ""))
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 20 else default


def safe_path(name: str, reference: object) -> PurePosixPath:
    """Returns the path of a file relative to the model directory.

    Raises:
        RegistryError: the path is absolute, leaves the directory, or is one of a pull's own files.
    """
    path = PurePosixPath(*[part for part in PurePosixPath(name).parts if part != "."])
    if (
        not path.parts
        or path.is_absolute()
        or ".." in path.parts
        or "\0" in name
        or len(name) > MAX_NAME_CHARACTERS
        or path.parts[0].startswith(RESERVED)
    ):
        raise RegistryError(f"{reference}: the file name {name[:200]!r} is not a path inside the model directory")
    return path
