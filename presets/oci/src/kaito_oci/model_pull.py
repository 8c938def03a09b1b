"""Pulls the files of a model artifact into a directory: in parallel, resumable, verified, complete or not at all.

Used by `kaito-pull-model`, the init container of a model pod, and by `kaito model pull`. Files of the directory:

    .kaito-lock       a file lock: one process pulls, the others wait; the kernel releases it when a process ends
    .kaito-partial/   what has been received (see `download`); `moving` names the artifact whose files are moved
    .kaito-model.json the marker (see `marker`)

A process that is killed at any point loses nothing: the next one continues. The marker exists only while all files do.
"""

import fcntl
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kaito_config.image_references import ImageReference

from kaito_oci.artifact_types import Layer, read_layers
from kaito_oci.download import LayerDownload, Stopped, remove_tree, sync
from kaito_oci.errors import CredentialsRejected, ProgramError, RegistryError
from kaito_oci.image_manifest import open_image
from kaito_oci.layout import check_free_disk
from kaito_oci.marker import MARKER, Marker, read_marker, write_marker
from kaito_oci.progress import Progress, gigabytes, size_text
from kaito_oci.registry import FetchedManifest, Registry

log = logging.getLogger(__name__)

PARALLEL: Final = 4
"""Layers at once. One connection rarely uses the bandwidth of a node; more than a few load the registry."""
POLL_SECONDS: Final = 1.0
LOCK: Final = ".kaito-lock"
PROGRESS: Final = ".kaito-progress.json"
_PARTIAL: Final = ".kaito-partial"
_MOVING: Final = "moving"
_PLAN: Final = "plan.json"


@dataclass(frozen=True, slots=True)
class PullOptions:
    """How to reach the registry."""

    docker_configs: Sequence[Path] = ()
    plain_http: bool = False
    parallel: int = PARALLEL
    sleep: Callable[[float], Any] | None = None
    """Replaces the delay between attempts."""


def pull_model(
    reference: ImageReference, directory: Path, progress: Progress, options: PullOptions = PullOptions()
) -> Marker:
    """Pulls a model into `directory`; returns at once if it is there.

    If the registry cannot be reached, a complete earlier pull of the same reference is used.

    Raises:
        ProgramError: see `kaito_oci.errors`.
    """
    try:
        registry, manifest = resolve(reference, options)
    except CredentialsRejected:
        raise
    except RegistryError as error:
        marker = read_marker(directory)
        if marker is None or marker.reference != str(reference):
            raise
        log.warning("%s; using the complete copy in %s", error, directory)
        _complete(marker, directory, reference, progress)
        return marker
    return fill_directory(registry, manifest, directory, progress, options)


def resolve(reference: ImageReference, options: PullOptions) -> tuple[Registry, FetchedManifest]:
    """Returns the registry and the manifest of an artifact."""
    sleep = options.sleep or time.sleep
    return open_image(reference, options.docker_configs, plain_http=options.plain_http, sleep=sleep)


def fill_directory(
    registry: Registry, manifest: FetchedManifest, directory: Path, progress: Progress, options: PullOptions
) -> Marker:
    """Pulls the files of a manifest into `directory`, which only one process does at a time."""
    layers = read_layers(manifest.document, registry.reference)
    marker = read_marker(directory)
    if marker is not None and marker.digest == manifest.digest and not (directory / _PARTIAL).exists():
        # Without the lock: a user that may only read the directory can use it.
        _complete(marker, directory, registry.reference, progress)
        return marker
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory, progress):
            marker = read_marker(directory)
            if marker is None or marker.digest != manifest.digest:
                marker = _Pull(registry, manifest, layers, directory, progress, options).run(marker)
            remove_tree(directory / _PARTIAL)
    except OSError as error:
        raise ProgramError(f"{directory} cannot be written: {error}") from error
    _complete(marker, directory, registry.reference, progress)
    return marker


def _complete(marker: Marker, directory: Path, reference: ImageReference, progress: Progress) -> None:
    size = size_text(sum(marker.files.values()))
    progress.set_phase("complete", f"{size} of {reference} are in {directory}")


class _Pull:
    """One pull, while the lock is held."""

    def __init__(
        self,
        registry: Registry,
        manifest: FetchedManifest,
        layers: Sequence[Layer],
        directory: Path,
        progress: Progress,
        options: PullOptions,
    ) -> None:
        self._registry = registry
        self._manifest = manifest
        self._layers = layers
        self._directory = directory
        self._partial = directory / _PARTIAL
        self._progress = progress
        self._options = options
        self._stop = threading.Event()
        self._downloads = {layer.digest: self._download(layer) for layer in layers}

    def _download(self, layer: Layer) -> LayerDownload:
        def report(done: int) -> None:
            self._progress.update(layer.digest, done)

        return LayerDownload(
            self._registry, layer, self._partial, report=report, stop=self._stop, sleep=self._options.sleep
        )

    def run(self, previous: Marker | None) -> Marker:
        self._partial.mkdir(exist_ok=True)
        moving = self._partial / _MOVING
        if not (moving.is_file() and moving.read_text() == self._manifest.digest):
            moving.unlink(missing_ok=True)
            self._remove_other_parts()
            self._transfer()
            moves = self._moves()
            stale = [name for name in (previous.files if previous else ()) if name not in moves]
            _write(self._partial / _PLAN, json.dumps({"moves": moves, "stale": stale}))
            # From here on the verified files are moved; a process that continues does not download them again.
            _write(moving, self._manifest.digest)
        (self._directory / MARKER).unlink(missing_ok=True)
        files = self._move_files()
        sync(self._directory)
        marker = Marker(str(self._registry.reference), self._manifest.digest, files)
        write_marker(self._directory, marker)
        return marker

    def _transfer(self) -> None:
        unique = {layer.digest: layer for layer in self._layers}.values()
        self._progress.start("pulling", sum(layer.size for layer in unique))
        present = sum(file.stat().st_size for file in self._partial.glob("*.*") if file.is_file())
        check_free_disk(self._directory, max(0, sum(layer.size for layer in unique) - present))
        pool = ThreadPoolExecutor(self._options.parallel, thread_name_prefix="pull")
        try:
            # The largest first: the last one to end is then a small one.
            ordered = sorted(unique, key=lambda layer: -layer.size)
            futures = [pool.submit(self._downloads[layer.digest].run) for layer in ordered]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed = [error for future in done if (error := future.exception()) and not isinstance(error, Stopped)]
            if failed:
                raise failed[0]
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)

    def _remove_other_parts(self) -> None:
        """Removes what an earlier pull of another artifact has left."""
        known = {layer.digest.removeprefix("sha256:") for layer in self._layers}
        for path in self._partial.iterdir():
            if path.name.partition(".")[0] not in known or path.suffix == ".unpacking":
                remove_tree(path)

    def _move_files(self) -> dict[str, int]:
        """Moves the verified files to their names; returns the size of each."""
        plan: dict[str, Any] = json.loads((self._partial / _PLAN).read_text())
        moves: dict[str, str] = plan["moves"]
        for name in plan["stale"]:
            (self._directory / name).unlink(missing_ok=True)
        sources = list(moves.values())
        for name, source in moves.items():
            path, target = self._partial / source, self._directory / name
            if not path.exists():
                continue  # moved before the process was restarted
            target.parent.mkdir(parents=True, exist_ok=True)
            remove_tree(target)
            if sources.count(source) > 1:
                copy = target.with_name(f".kaito-copy-{target.name}")
                shutil.copyfile(path, copy)
                sync(copy)
                path = copy
            path.chmod(0o644)
            path.rename(target)
        return {name: (self._directory / name).stat().st_size for name in moves}

    def _moves(self) -> dict[str, str]:
        """Returns the source below the partial folder for each file of the model."""
        moves: dict[str, str] = {}
        for layer in self._layers:
            download = self._downloads[layer.digest]
            if download.file.exists():
                found = {layer.name: download.file}
            else:
                found = {
                    path.relative_to(download.tree).as_posix(): path
                    for path in sorted(download.tree.rglob("*"))
                    if path.is_file()
                }
            for name, path in found.items():
                if name in moves:
                    raise RegistryError(f"{self._registry.reference}: two layers contain {name!r}")
                moves[name] = path.relative_to(self._partial).as_posix()
        _check_tree(moves, self._registry.reference)
        return moves


def _check_tree(names: dict[str, str], reference: ImageReference) -> None:
    for name in names:
        for other in Path(name).parents:
            if other.as_posix() in names:
                raise RegistryError(f"{reference}: {other.as_posix()!r} is a file and a directory")


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.new")
    partial.write_text(text)
    sync(partial)
    partial.replace(path)
    sync(path.parent)


@contextmanager
def locked(directory: Path, progress: Progress, *, sleep: Callable[[float], None] = time.sleep) -> Generator[None]:
    """Holds the lock of a directory; reports the progress of the other process while it waits.

    The kernel releases the lock of a process that was killed, so that it cannot block the next one.
    """
    with (directory / LOCK).open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                done, total = _other(directory)
                progress.start("waiting", total, f"waiting: another process pulls {gigabytes(done, total)}")
                progress.update("other", done)
                sleep(POLL_SECONDS)
            except OSError as error:  # a network file system without locks
                log.warning("%s does not support file locks: %s", directory, error)
                break
        progress.start("resolving", 0)
        progress.files.append(directory / PROGRESS)  # for the processes that wait
        try:
            yield
        finally:
            progress.files.remove(directory / PROGRESS)
            (directory / PROGRESS).unlink(missing_ok=True)


def _other(directory: Path) -> tuple[int, int]:
    """Returns the bytes and the total of the process that holds the lock; zeros if it has not written them."""
    try:
        state = json.loads((directory / PROGRESS).read_bytes())
        return int(state["bytes"]), int(state["total"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0
