"""Builds the images under test and pushes them to the registry of the cluster.

Layers that did not change are neither built nor pushed again: a run with warm caches builds only the project's
own code.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hack.cluster import REGISTRY, Cluster, registry
from test.support.real_node import PREFIX, ROOT, VERSION

BASE = "localhost/kaito-base:bookworm"
BASE_IN_REGISTRY = f"{REGISTRY}/test/base:1"
"""The base image of all others: Debian with Python; test pods run it."""


def make_base(cluster: Cluster, report: Callable[[str], None]) -> str:
    """Makes the base image, unless it exists, and pushes it; returns its name in the cluster's registry."""
    if not _has_image(BASE):
        _run(report, sys.executable, "-m", "hack.images", "base", "--engine", "buildah")
    push = cluster.command("buildah", "push", "--tls-verify=false", "--disable-compression", BASE)
    _run(report, *push, f"docker://{BASE_IN_REGISTRY}")
    return BASE_IN_REGISTRY


def build_and_push(cluster: Cluster, names: Sequence[str], report: Callable[[str], None]) -> None:
    """Builds images of the repository on the base image and pushes them as `PREFIX`/NAME:VERSION.

    Raises:
        CalledProcessError: a build or a push failed; the output has been printed.
    """
    if os.environ.get("KAITO_E2E_BUILD") == "0" and all(VERSION in _tags(cluster, name) for name in names):
        return
    if not _has_image(BASE):
        _run(report, sys.executable, "-m", "hack.images", "base", "--engine", "buildah")
    images = (sys.executable, "-m", "hack.images")
    cache = ("--uv-cache", str(uv_cache()))
    _run(report, *images, "build", *names, "--engine", "buildah", "--base-image", BASE, *cache)
    push = (*images, "push", *names, "--engine", "buildah", "--registry", PREFIX, "--plain-http", "--no-compression")
    _run(report, *cluster.command(*push))
    for name in names:
        refresh(cluster, name, report)


def refresh(cluster: Cluster, name: str, report: Callable[[str], None], *, node: str | None = None) -> None:
    """Pulls an image again: the node has one of an earlier run, and pods do not pull a tag that is there.

    Args:
        cluster: The cluster.
        name: The image's name, without prefix and version.
        report: Receives the time it took.
        node: The node that pulls; by default the scheduler chooses.
    """
    begun = time.monotonic()
    pod = f"pull-{name}"
    overrides = () if node is None else (f"--overrides={json.dumps({'spec': {'nodeName': node}})}",)
    words = ("--restart=Never", "--image-pull-policy=Always", *overrides, "--command", "--", "true")
    cluster.kubectl("run", pod, f"--image={PREFIX}/{name}:{VERSION}", *words)
    try:
        phase = "jsonpath={.status.phase}=Succeeded"
        cluster.kubectl("wait", f"pod/{pod}", f"--for={phase}", "--timeout=900s", timeout_seconds=930)
    finally:
        cluster.kubectl("delete", "pod", pod, "--wait=false")
    report(f"{name}: pulled and started in {time.monotonic() - begun:.0f} s")


def smollm2(report: Callable[[str], None]) -> Path:
    """Returns the directory of SmolLM2-135M-Instruct; converts it on the first call."""
    return Path(_run(report, sys.executable, "-m", "hack.models.smollm2").splitlines()[-1])


def push_model(cluster: Cluster, directory: Path, reference: str, report: Callable[[str], None]) -> None:
    """Packs a model directory and pushes it to the cluster's registry, as docs/guides/private-images.md describes
    it."""
    authority = f"SSL_CERT_FILE={cluster.layout.certificates / 'ca.crt'}"
    pack = (str(Path(sys.executable).with_name("kaito")), "model", "pack", str(directory), reference, "--push")
    _run(report, *cluster.command("env", authority, *pack))


def uv_cache() -> Path:
    """Returns uv's cache of the machine, which has the packages of the presets environment."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("UV_CACHE_DIR") or root / "uv")


def _tags(cluster: Cluster, name: str) -> list[str]:
    return registry.tags(cluster.layout, f"{PREFIX.partition('/')[2]}/{name}")


def _has_image(name: str) -> bool:
    return (
        subprocess.run(["buildah", "inspect", "--type", "image", name], capture_output=True, check=False).returncode
        == 0
    )


def _run(report: Callable[[str], None], *command: str) -> str:
    report(f"+ {' '.join(command)}")
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        report(result.stdout[-4000:] + result.stderr[-4000:])
        raise subprocess.CalledProcessError(result.returncode, command)
    return result.stdout
