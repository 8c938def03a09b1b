"""Locates Karpenter with the kwok provider and its CRDs: in the user's cache, or builds it with Go.

The version is that of `go.mod` in this folder. A build with cold caches takes about four minutes of one core and is
done once per version.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from kaito.runtime.testing.envtest.binaries import Unavailable

HERE: Final = Path(__file__).parent
MODULE: Final = "sigs.k8s.io/karpenter"
BINARY: Final = "karpenter-kwok"
CRDS: Final = ("pkg/apis/crds", "kwok/apis/crds")
"""Folders of the module with CRDs."""


def _pinned() -> str:
    found = re.search(rf"^\s*(?:require )?{re.escape(MODULE)} v(\S+)", (HERE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"hack/karpenter/go.mod does not require {MODULE}")
    return found.group(1)


KARPENTER_VERSION: Final = _pinned()


def cache_directory() -> Path:
    """Folder of the binary and of `crds`, outside the working tree."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "kaito" / "karpenter" / KARPENTER_VERSION


def locate() -> Path:
    """Returns the folder with the binary and the folder `crds`; builds them if they are missing.

    Raises:
        Unavailable: they are missing and cannot be built here.
    """
    folder = cache_directory()
    if _is_complete(folder):
        return folder
    if shutil.which("go") is None:
        raise Unavailable("no Karpenter: install Go so that it can be built")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:  # parallel test runs build once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_complete(folder):
            _build(folder)
    return folder


def _is_complete(folder: Path) -> bool:
    return (folder / BINARY).is_file() and (folder / "crds").is_dir()


def _build(folder: Path) -> None:
    print(f"building Karpenter {KARPENTER_VERSION} (once; about two minutes on two cores)", file=sys.stderr, flush=True)
    started = time.monotonic()
    partial = folder / f"{BINARY}.partial"
    _go("build", "-trimpath", "-ldflags", "-s -w", "-o", str(partial), f"{MODULE}/kwok")
    source = Path(_go("list", "-m", "-f", "{{.Dir}}", MODULE).strip())
    crds = folder / "crds.partial"
    shutil.rmtree(crds, ignore_errors=True)
    crds.mkdir()
    for part in CRDS:
        for file in sorted((source / part).glob("*.yaml")):
            (crds / file.name).write_bytes(file.read_bytes())
    shutil.rmtree(folder / "crds", ignore_errors=True)
    crds.rename(folder / "crds")
    partial.rename(folder / BINARY)
    print(f"built Karpenter {KARPENTER_VERSION} in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def _go(*arguments: str) -> str:
    """Runs Go in the module of this folder and returns its output.

    Raises:
        Unavailable: Go failed.
    """
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}
    result = subprocess.run(["go", *arguments], cwd=HERE, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise Unavailable(f"building Karpenter with Go failed: {result.stderr.strip()[-400:]}")
    return result.stdout
