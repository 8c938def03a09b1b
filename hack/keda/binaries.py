"""Locates KEDA's operator, metrics adapter and CRDs in the user's cache, or builds them with Go.

The module is downloaded through the module proxy and compared with a pinned digest. It is built in a copy of its own
folder, because its `go.mod` replaces a module, which Go ignores in a module that requires it. kube-controller-manager,
whose HorizontalPodAutoscaler reads KEDA's metrics, is that of `hack.cluster`.
"""

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from hack.cache import cache_folder
from hack.cluster import binaries as cluster
from hack.go import build_once, go
from kaito.runtime.testing.envtest.binaries import Unavailable

MODULE: Final = "github.com/kedacore/keda/v2"
KEDA_VERSION: Final = "v2.21.0"
SUM: Final = "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps="
"""Digest of the module, as in a `go.sum`; its dependencies are in the module's own."""

OPERATOR: Final = "keda-operator"
ADAPTER: Final = "keda-adapter"
CONTROLLER_MANAGER: Final = "kube-controller-manager"

_PACKAGES: Final = {OPERATOR: "./cmd/operator", ADAPTER: "./cmd/adapter"}


def cache_directory() -> Path:
    """Folder of the programs and of `crds`, outside the working tree."""
    return cache_folder("keda", KEDA_VERSION)


def path(name: str) -> Path:
    """Returns the path of a program; does not build it."""
    return cluster.path(name) if name == CONTROLLER_MANAGER else cache_directory() / name


def is_built() -> bool:
    """Whether all programs exist."""
    return _is_complete(cache_directory()) and path(CONTROLLER_MANAGER).is_file()


def locate() -> Path:
    """Returns the folder with KEDA's programs and the folder `crds`; builds what is missing.

    Raises:
        Unavailable: something is missing and cannot be built here.
    """
    folder = cache_directory()
    if is_built():
        return folder
    build_once(
        folder,
        lambda: _is_complete(folder),
        lambda: _build(folder),
        without_go="no KEDA: install Go so that it can be built",
    )
    cluster.build(_report, {CONTROLLER_MANAGER})
    return folder


def _is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _PACKAGES) and (folder / "crds").is_dir()


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _build(folder: Path) -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="keda-") as scratch:
        found = json.loads(_go("mod", "download", "-json", f"{MODULE}@{KEDA_VERSION}", folder=Path(scratch)))
        if found["Sum"] != SUM:
            raise Unavailable(f"{MODULE}@{KEDA_VERSION} has the digest {found['Sum']} instead of {SUM}")
        source = Path(scratch) / "source"
        shutil.copytree(found["Dir"], source, copy_function=shutil.copyfile)  # files of the module cache are read-only
        for name, package in _PACKAGES.items():
            _report(f"building {name} {KEDA_VERSION} (once)")
            partial = folder / f"{name}.partial"
            _go("build", "-trimpath", "-ldflags", "-s -w", "-o", str(partial), package, folder=source)
            partial.rename(folder / name)
        shutil.rmtree(folder / "crds", ignore_errors=True)
        shutil.copytree(source / "config" / "crd" / "bases", folder / "crds")
    _report(f"built KEDA {KEDA_VERSION} in {time.monotonic() - started:.0f} s")


def _go(*arguments: str, folder: Path) -> str:
    return go(*arguments, folder=folder, purpose="KEDA")
