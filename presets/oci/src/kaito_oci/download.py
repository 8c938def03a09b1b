"""Downloads one layer of an artifact to a file, with resumption, verification and bounded memory.

Used by `model_pull`, once for each layer, concurrently. Files in the folder of partial downloads, by digest:

    HEX.part    the bytes that have been received; a later attempt, also of another process, continues after them
    HEX.file    the verified file
    HEX.tar     a verified archive that is not unpacked yet
    HEX.tree    the verified and completely unpacked archive

An archive with a single file, which is what Kaito packs, is stored without its header, so that the file needs no second
copy. A byte reaches its final name only after the digest of the whole layer has been verified.
"""

import errno
import gzip
import hashlib
import importlib
import logging
import os
import shutil
import tarfile
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, Final, final

from kaito_oci.artifact_types import Layer, safe_path
from kaito_oci.errors import InsufficientDisk, ProgramError, RegistryError
from kaito_oci.registry import CHUNK_BYTES, MAX_ATTEMPTS, Registry, backoff_seconds, is_temporary

log = logging.getLogger(__name__)

BLOCK: Final = tarfile.BLOCKSIZE
MAX_PADDING_BYTES: Final = 64 * BLOCK
"""Zeros after the only file of an archive: at least two blocks; tools fill up to 20."""
MAX_MISMATCHES: Final = 2
"""Complete downloads with a wrong digest before the layer is reported as damaged."""


class Stopped(Exception):
    """Another layer failed, so this download ends too."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """Which part of a blob is the file: `header`, then `payload` bytes, then `padding` zeros."""

    header: bytes
    payload: int
    padding: int

    @property
    def is_file(self) -> bool:
        return bool(self.header)


@final
class LayerDownload:
    """Download of one layer into `folder`."""

    def __init__(
        self,
        registry: Registry,
        layer: Layer,
        folder: Path,
        *,
        report: Callable[[int], None],
        stop: threading.Event,
        sleep: Callable[[float], Any] | None = None,
    ) -> None:
        hexadecimal = layer.digest.removeprefix("sha256:")
        self._registry = registry
        self._layer = layer
        self._report = report
        self._stop = stop
        self._sleep = sleep or stop.wait
        self._part = folder / f"{hexadecimal}.part"
        self.file = folder / f"{hexadecimal}.file"
        self._archive = folder / f"{hexadecimal}.tar"
        self.tree = folder / f"{hexadecimal}.tree"
        self._hash: Any = None
        """Digest of the header and the first `_stored` bytes of the part file; None before it has been read."""
        self._stored = 0

    @property
    def is_complete(self) -> bool:
        """Whether the layer is verified and unpacked."""
        return self.file.exists() or self.tree.exists()

    def run(self) -> None:
        """Downloads, verifies and unpacks the layer.

        Raises:
            RegistryError: the registry does not deliver the layer, after retries, or the archive is malformed.
            InsufficientDisk: the disk is full.
            Stopped: `stop` was set.
        """
        if not self.is_complete and not self._archive.exists():
            self._fetch()
        if self.tree.exists():
            self._archive.unlink(missing_ok=True)  # the process ended before it removed the archive
        elif self._archive.exists():
            self._unpack()
        self._report(self._layer.size)

    # Transfer.

    def _fetch(self) -> None:
        failures = mismatches = 0
        while True:
            before = self._stored
            try:
                self._attempt()
                return
            except (OSError, HTTPException, RegistryError) as error:
                if self._stop.is_set():
                    raise Stopped from error
                if isinstance(error, _Mismatch):
                    mismatches += 1
                # A long download survives any number of interruptions, as long as each attempt receives something.
                failures = 1 if self._stored > before else failures + 1
                repeatable = is_temporary(error) or isinstance(error, _Mismatch)
                if not repeatable or failures >= MAX_ATTEMPTS or mismatches >= MAX_MISMATCHES:
                    raise self._failed(error) from error
                seconds = backoff_seconds(failures - 1, error)
                log.warning(
                    "%s: %s; continuing after %d of %d bytes in %.0f s",
                    self._label, error, self._stored, self._layer.size, seconds,
                )  # fmt: skip
                self._sleep(seconds)
                if self._stop.is_set():
                    raise Stopped from error

    def _attempt(self) -> None:
        """Receives the missing bytes in one request, or two for the header of an archive."""
        layer = self._layer
        if layer.is_archive and not layer.compression:
            with self._registry.open_blob(layer.digest, 0) as opened:
                header = opened.read_exactly(min(BLOCK, layer.size))
                shape = self._shape(header)
                stored = self._resume(shape)
                if stored == 0 and shape.payload:
                    # A new download continues in the same response. An archive that is stored as it is has the header
                    # in its file.
                    self._receive(opened.stream, shape, b"" if shape.is_file else header)
                    self._verify(shape)
                    return
            start = len(shape.header) + stored
        else:
            shape = _Shape(b"", layer.size, 0)
            start = self._resume(shape)
        if self._stored < shape.payload:
            with self._registry.open_blob(layer.digest, start) as stream:
                if stream.start != start:  # the registry ignores ranges
                    stream.skip(start - stream.start)
                self._receive(stream.stream, shape, b"")
        self._verify(shape)

    def _shape(self, header: bytes) -> _Shape:
        """Decides from the first block whether an archive contains a single file and nothing else."""
        size = self._layer.size
        whole = _Shape(b"", size, 0)
        if len(header) < BLOCK:
            return whole
        try:
            entry = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
            name = str(safe_path(entry.name, self._registry.reference))
        except (tarfile.TarError, UnicodeError, RegistryError):
            return whole  # `_unpack` reports it
        padding = size - BLOCK - entry.size
        if not entry.isreg() or not self._layer.name or name != self._layer.name:
            return whole
        return _Shape(header, entry.size, padding) if 0 <= padding <= MAX_PADDING_BYTES else whole

    def _resume(self, shape: _Shape) -> int:
        """Returns the size of the part file, after reading it once for the digest."""
        if self._hash is None:
            self._hash, self._stored = hashlib.sha256(shape.header), 0
            if self._part.exists() and self._part.stat().st_size <= shape.payload:
                with self._part.open("rb") as file:
                    while piece := file.read(CHUNK_BYTES):
                        self._hash.update(piece)
                        self._stored += len(piece)
                        self._report(self._stored)
                if self._stored:
                    log.info("%s: continuing after %d bytes", self._label, self._stored)
            else:
                self._part.unlink(missing_ok=True)
        return self._stored

    def _receive(self, stream: IO[bytes], shape: _Shape, first: bytes) -> None:
        """Appends the bytes of `stream` to the part file, up to the end of the payload."""
        try:
            file = self._part.open("r+b" if self._part.exists() else "w+b", buffering=0)
        except OSError as error:
            raise self._disk_error(error) from error
        with file:
            file.seek(self._stored)
            file.truncate()
            piece = first
            while self._stored < shape.payload:
                if self._stop.is_set():
                    raise Stopped
                piece = piece or stream.read(min(CHUNK_BYTES, shape.payload - self._stored))
                if not piece:
                    raise ConnectionError("the connection ended early")
                try:
                    view = memoryview(piece)
                    while view:
                        view = view[file.write(view) :]
                except OSError as error:
                    raise self._disk_error(error) from error
                self._hash.update(piece)
                self._stored += len(piece)
                self._report(self._stored)
                piece = b""

    def _verify(self, shape: _Shape) -> None:
        found = self._hash.copy()
        found.update(bytes(shape.padding))
        if f"sha256:{found.hexdigest()}" != self._layer.digest:
            self._part.unlink(missing_ok=True)
            self._hash, self._stored = None, 0
            raise _Mismatch(f"{self._registry.reference}: the content of {self._label} does not match its digest")
        if not self._part.exists():
            self._part.touch()  # an empty file
        sync(self._part)
        self._part.replace(self._archive if self._layer.is_archive and not shape.is_file else self.file)

    # Archives.

    def _unpack(self) -> None:
        """Unpacks an archive of several entries, or a compressed one."""
        temporary = self.tree.with_suffix(".unpacking")
        remove_tree(temporary)
        temporary.mkdir()
        try:
            with self._opened() as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
                for entry in archive:
                    self._write(archive, entry, temporary)
        except OSError as error:
            if isinstance(error, gzip.BadGzipFile):
                raise RegistryError(f"{self._label} is not a gzip file: {error}") from error
            raise self._disk_error(error) from error
        except (tarfile.TarError, EOFError, zlib.error, ValueError, RecursionError) as error:
            raise RegistryError(f"{self._registry.reference}: {self._label} is not a tar archive: {error}") from error
        temporary.rename(self.tree)
        self._archive.unlink()

    def _write(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, folder: Path) -> None:
        if entry.isdir() and entry.name.strip("./") == "":
            return
        target = folder / safe_path(entry.name, self._registry.reference)
        if entry.isdir():
            target.mkdir(parents=True, exist_ok=True)
            return
        content = archive.extractfile(entry) if entry.isreg() else None
        if content is None:
            raise RegistryError(
                f"{self._registry.reference}: {entry.name!r} is a link or a device; a model contains regular files only"
            )
        if target.exists() or any(parent.is_file() for parent in target.parents):
            raise RegistryError(f"{self._registry.reference}: {entry.name!r} is in the archive twice")
        target.parent.mkdir(parents=True, exist_ok=True)
        with content, target.open("xb") as file:
            while piece := content.read(CHUNK_BYTES):
                if self._stop.is_set():
                    raise Stopped
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())

    def _opened(self) -> IO[bytes]:
        if self._layer.compression == "zstd":
            return open_zstd(self._archive)
        if self._layer.compression == "gzip":
            return gzip.open(self._archive, "rb")  # type: ignore[return-value]  # GzipFile is an IO[bytes]
        return self._archive.open("rb")

    # Errors.

    @property
    def _label(self) -> str:
        return self._layer.name or self._layer.digest[:19]

    def _failed(self, error: Exception) -> ProgramError:
        if isinstance(error, RegistryError) and str(error).startswith(str(self._registry.reference)):
            return error
        return RegistryError(f"{self._registry.reference}: download of {self._label}: {error}")

    def _disk_error(self, error: OSError) -> ProgramError:
        kind = InsufficientDisk if error.errno in (errno.ENOSPC, errno.EDQUOT) else ProgramError
        return kind(f"{self._label} cannot be written to {self._part.parent}: {error}")


class _Mismatch(RegistryError):
    """The digest of a completely received layer is wrong. One repetition may help: the stored part may be damaged."""


def open_zstd(file: Path) -> IO[bytes]:
    """Opens a zstd file with Python 3.14's module, or with the package `zstandard`.

    Raises:
        RegistryError: neither is installed.
    """
    for name in ("compression.zstd", "zstandard"):
        try:
            module: Any = importlib.import_module(name)
        except ImportError:
            continue
        opened: IO[bytes] = module.open(file, "rb")
        return opened
    raise RegistryError(
        "zstd layers need Python 3.14 or the package zstandard; pack the model with another compression"
    )


def sync(path: Path) -> None:
    """Writes a file or directory to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Removes a directory if it exists."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
