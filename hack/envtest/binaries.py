"""Locates the control plane's binaries: `KUBEBUILDER_ASSETS`, the user's cache, or a build with Go.

A build takes about five minutes with cold caches and is done once per version. The version is stamped into the
binaries: an unstamped kube-apiserver reports v0.0.0 and refuses to start its features.
"""

import os
import sys
from pathlib import Path

from hack.cache import cache_folder
from hack.go import build_once, go
from kaito.runtime.testing.envtest.binaries import ESSENTIAL, Unavailable

HERE = Path(__file__).parent
KUBERNETES_VERSION = "v1.35.4"
_MAJOR, _MINOR, _ = KUBERNETES_VERSION.removeprefix("v").split(".")


def cache_directory() -> Path:
    """Folder of built binaries, outside the working tree."""
    return cache_folder("envtest", KUBERNETES_VERSION.removeprefix("v"))


def locate(names: tuple[str, ...] = ESSENTIAL) -> Path:
    """Returns the folder with the named binaries; builds missing ones.

    Raises:
        Unavailable: binaries are missing and cannot be built here.
    """
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets:
        missing = _missing(Path(assets), names)
        if missing:
            raise Unavailable(f"KUBEBUILDER_ASSETS={assets} lacks {', '.join(missing)}")
        return Path(assets)
    folder = cache_directory()

    def build() -> None:
        for name in _missing(folder, names):
            _build(name, folder)

    message = "no real kube-apiserver: set KUBEBUILDER_ASSETS, or install Go so that one can be built"
    build_once(folder, lambda: not _missing(folder, names), build, without_go=message)
    return folder


def _missing(folder: Path, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if not (folder / name).is_file()]


def _build(name: str, folder: Path) -> None:
    module, package = (
        ("etcd", "go.etcd.io/etcd/server/v3") if name == "etcd" else ("control-plane", f"k8s.io/kubernetes/cmd/{name}")
    )
    stamp = "k8s.io/component-base/version"
    flags = (
        f"-s -w -X {stamp}.gitVersion={KUBERNETES_VERSION} -X {stamp}.gitMajor={_MAJOR} -X {stamp}.gitMinor={_MINOR}"
    )
    print(f"building {name} (once; up to four minutes)", file=sys.stderr, flush=True)
    partial = folder / f"{name}.partial"
    go("build", "-trimpath", "-ldflags", flags, "-o", str(partial), package, folder=HERE / module, purpose=name)
    partial.rename(folder / name)
