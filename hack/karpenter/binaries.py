"""Locates Karpenter with the kwok provider and its CRDs: in the user's cache, or builds it with Go.

The version is that of `go.mod` in this folder. A build with cold caches takes about four minutes of one core and is
done once per version.
"""

import re
import shutil
import sys
import time
from pathlib import Path
from typing import Final

from hack.cache import cache_folder
from hack.go import build_once, go

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
    return cache_folder("karpenter", KARPENTER_VERSION)


def locate() -> Path:
    """Returns the folder with the binary and the folder `crds`; builds them if they are missing.

    Raises:
        Unavailable: they are missing and cannot be built here.
    """
    folder = cache_directory()
    build_once(
        folder,
        lambda: _is_complete(folder),
        lambda: _build(folder),
        without_go="no Karpenter: install Go so that it can be built",
    )
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
    return go(*arguments, folder=HERE, purpose="Karpenter")
