"""Locates the control plane's binaries: `KUBEBUILDER_ASSETS`, the user's cache, or a build with Go.

A build takes about five minutes with cold caches and is done once per version. The version is stamped into the
binaries: an unstamped kube-apiserver reports v0.0.0 and refuses to start its features.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from kaito.runtime.testing.envtest.binaries import ESSENTIAL, Unavailable

HERE = Path(__file__).parent
KUBERNETES_VERSION = "v1.35.4"
_MAJOR, _MINOR, _ = KUBERNETES_VERSION.removeprefix("v").split(".")


def cache_directory() -> Path:
    """Folder of built binaries, outside the working tree."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "kaito" / "envtest" / KUBERNETES_VERSION.removeprefix("v")


def locate(names: tuple[str, ...] = ESSENTIAL) -> Path:
    """Return the folder with the named binaries; builds missing ones.

    Raises:
        Unavailable: binaries are missing and cannot be built here.
    """
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets:
        missing = [name for name in names if not (Path(assets) / name).is_file()]
        if missing:
            raise Unavailable(f"KUBEBUILDER_ASSETS={assets} lacks {', '.join(missing)}")
        return Path(assets)
    folder = cache_directory()
    if all((folder / name).is_file() for name in names):
        return folder
    if shutil.which("go") is None:
        raise Unavailable("no real kube-apiserver: set KUBEBUILDER_ASSETS, or install Go so that one can be built")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:  # parallel test runs build once
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in names:
            if not (folder / name).is_file():
                _build(name, folder)
    return folder


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
    result = subprocess.run(
        ["go", "build", "-trimpath", "-ldflags", flags, "-o", str(partial), package],
        cwd=HERE / module,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise Unavailable(f"building {name} with Go failed: {result.stderr.strip()[-400:]}")
    partial.rename(folder / name)
