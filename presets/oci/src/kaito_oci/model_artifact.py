"""Packs a model directory as an OCI image with one layer for each file.

Used by `kaito model pack`. Each layer is an *uncompressed* tar archive with one regular file in the root, owned by
root, mode 0644 and without times: the same files have the same digests. Why not gzip, which ORAS could unpack: weights
do not compress; a pull writes an uncompressed file directly to its place and continues after any byte, where a
compressed layer needs a second copy on the disk and a processor for each stream; and ORAS unpacks only archives of
directories. `oras pull` therefore writes `NAME.tar` files, and `tar -xf` unpacks them. Container runtimes mount the
image as an image volume: its root contains the files.

Nothing is copied and no file is held in memory: digests are computed from the files, and uploads read them again.
"""

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kaito_oci import artifact_types
from kaito_oci.artifact_types import FILE_PATH, FILE_SIZE, IMAGE_CONFIG, TAR_LAYER, TITLE
from kaito_oci.errors import NotAModel
from kaito_oci.model_files import (
    CONFIG,
    ModelFacts,
    ModelFile,
    model_card_license,
    model_facts,
    model_files,
    read_json,
)
from kaito_oci.registry import CHUNK_BYTES, INDEX, MANIFEST, file_pieces

END_BYTES: Final = 2 * tarfile.BLOCKSIZE
"""Zeros at the end of an archive."""
HASH_THREADS: Final = 4
PLATFORMS: Final = ("linux/amd64", "linux/arm64")
"""A container runtime unpacks only images of its platform: an artifact has one image for each, with common layers."""

Pieces = Callable[[], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class Blob:
    """Content of an artifact: bytes, a file, or a function that reads the pieces."""

    digest: str
    size: int
    content: bytes | Path | Pieces
    label: str = ""

    def pieces(self, report: Callable[[str, int], None] = lambda _name, _done: None) -> Iterator[bytes]:
        """Reads the content; `report` gets the label and the number of bytes that were read."""
        if isinstance(self.content, bytes):
            source = iter([self.content])
        else:
            source = file_pieces(self.content) if isinstance(self.content, Path) else self.content()
        done = 0
        for piece in source:
            yield piece
            done += len(piece)
            report(self.label or self.digest, done)

    def read(self) -> bytes:
        """Returns the whole content, which must be small."""
        return b"".join(self.pieces())


@dataclass(frozen=True, slots=True)
class Artifact:
    """A packed model: the blobs, the manifests by digest, and the index that the tag names."""

    blobs: tuple[Blob, ...]
    manifests: tuple[Blob, ...]
    index: Blob
    annotations: Mapping[str, str]
    facts: ModelFacts
    files: tuple[ModelFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(blob.size for blob in self.blobs)


@dataclass(frozen=True, slots=True)
class Identity:
    """What the files do not contain."""

    name: str = ""
    """Hugging Face id or another name; default: `_name_or_path` of config.json, else the name of the directory."""
    revision: str = ""
    license: str = ""
    """SPDX identifier; default: that of the model card."""
    source: str = ""
    """Address of the model's page."""


def archive_header(name: str, size: int) -> bytes:
    """Returns the header of the only entry of a layer: one block for names up to 100 bytes; any size.

    The GNU format is used because it stores sizes above 8 GiB in the same block.
    """
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry.tobuf(tarfile.GNU_FORMAT, "utf-8")


def archive_size(name: str, size: int) -> int:
    """Returns the size of a layer."""
    return len(archive_header(name, size)) + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE + END_BYTES


def archive_pieces(file: ModelFile) -> Iterator[bytes]:
    """Reads a layer from the file.

    Raises:
        NotAModel: the file was changed while it was read.
    """
    yield archive_header(file.name, file.size)
    left = file.size
    with file.path.open("rb") as opened:
        while left and (piece := opened.read(min(CHUNK_BYTES, left))):
            left -= len(piece)
            yield piece
    if left:
        raise NotAModel(f"{file.path} became shorter while it was read; pack the model again")
    yield bytes(-file.size % tarfile.BLOCKSIZE + END_BYTES)


def pack_model(
    directory: Path,
    identity: Identity = Identity(),
    *,
    report: Callable[[str, int], None] = lambda _name, _done: None,
    platforms: Sequence[str] = PLATFORMS,
    annotations: Mapping[str, str] | None = None,
) -> Artifact:
    """Computes the artifact of a model directory; `report` gets the name of a file and the bytes that were read.

    Raises:
        NotAModel: the directory is not a model, or a file is damaged.
    """
    files = model_files(directory)
    facts = model_facts(directory, files)
    described = _annotations(directory, identity, facts) | dict(annotations or {})
    with ThreadPoolExecutor(HASH_THREADS, thread_name_prefix="hash") as pool:
        layers = list(pool.map(_layer, files, [report] * len(files)))
    configs = [_config(platform, layers) for platform in platforms]
    manifests = [_manifest(config, layers, files, described) for config in configs]
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [
            {
                "mediaType": MANIFEST,
                "digest": manifest.digest,
                "size": manifest.size,
                "platform": dict(zip(("os", "architecture"), platform.split("/"), strict=True)),
            }
            for manifest, platform in zip(manifests, platforms, strict=True)
        ],
        "annotations": described,
    }
    return Artifact((*layers, *configs), tuple(manifests), json_blob(index), described, facts, tuple(files))


def _layer(file: ModelFile, report: Callable[[str, int], None]) -> Blob:
    digest, done = hashlib.sha256(), 0
    for piece in archive_pieces(file):
        digest.update(piece)
        done += len(piece)
        report(file.name, done)
    return Blob(f"sha256:{digest.hexdigest()}", done, lambda: archive_pieces(file), file.name)


def _config(platform: str, layers: Sequence[Blob]) -> Blob:
    system, architecture = platform.split("/")
    return json_blob(
        {
            "architecture": architecture,
            "os": system,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
            "history": [
                {"created": "1970-01-01T00:00:00Z", "created_by": f"kaito model pack: {layer.label}"}
                for layer in layers
            ],
        }
    )


def _manifest(config: Blob, layers: Sequence[Blob], files: Sequence[ModelFile], annotations: Mapping[str, str]) -> Blob:
    return json_blob(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": IMAGE_CONFIG, "digest": config.digest, "size": config.size},
            "layers": [
                {
                    "mediaType": TAR_LAYER,
                    "digest": layer.digest,
                    "size": layer.size,
                    "annotations": {
                        FILE_PATH: file.name,
                        TITLE: f"{file.name}.tar",
                        FILE_SIZE: str(file.size),
                    },
                }
                for layer, file in zip(layers, files, strict=True)
            ],
            "annotations": annotations,
        }
    )


def json_blob(document: Mapping[str, Any]) -> Blob:
    """Returns a document as a blob."""
    content = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    return Blob(f"sha256:{hashlib.sha256(content).hexdigest()}", len(content), content)


def fact_annotations(facts: ModelFacts) -> dict[str, str]:
    """Returns the annotations for what the files of a model contain; unknown values are empty."""
    return {
        artifact_types.MODEL_ARCHITECTURE: facts.architecture,
        artifact_types.MODEL_DTYPE: facts.dtype,
        artifact_types.MODEL_QUANTIZATION: facts.quantization,
        artifact_types.MODEL_PARAMETERS: str(facts.parameters or ""),
        artifact_types.MODEL_CONTEXT: str(facts.context or ""),
        artifact_types.MODEL_WEIGHTS: str(facts.weights_bytes),
    }


def _annotations(directory: Path, identity: Identity, facts: ModelFacts) -> dict[str, str]:
    name = identity.name or str(read_json(directory / CONFIG).get("_name_or_path") or "") or directory.resolve().name
    found = {
        TITLE: name,
        artifact_types.REVISION: identity.revision,
        artifact_types.LICENSES: identity.license or model_card_license(directory),
        artifact_types.SOURCE: identity.source,
        artifact_types.MODEL_NAME: name,
        **fact_annotations(facts),
        artifact_types.MODEL_SIZE: str(facts.size),
    }
    return {key: value for key, value in sorted(found.items()) if value}
