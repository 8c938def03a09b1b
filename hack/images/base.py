"""Makes a base image without an image registry: a minimal Debian with Python, pip and the certificates of the machine.

Used on machines that reach a Debian mirror but no image registry. The result replaces `python:3.12-slim-bookworm`
through the build argument BASE_IMAGE; its Python is that of Debian (3.11 in bookworm). Needs root, debootstrap and
Buildah.
"""

import os
import shutil
import subprocess
from pathlib import Path

from hack.images.engine import Buildah

BASE_NAME = "localhost/kaito-base"
PACKAGES = ("ca-certificates", "netbase", "python3", "python3-pip", "python3-venv", "tzdata")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
UNUSED = ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale")
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


class BaseImageError(Exception):
    """The base image cannot be made; the message names what is missing."""


def make_base_image(engine: Buildah, folder: Path, suite: str, mirror: str, *, renew: bool = False) -> str:
    """Creates the base image in the engine's storage unless it exists; returns its name.

    An existing image is left unchanged, because every layer of the images on top of it would be built again. The root
    file system stays in `folder` for the next storage. `renew` makes both again, with the current packages of the
    mirror.

    Raises:
        BaseImageError: the process is not root, or a program is missing.
        CalledProcessError: debootstrap or Buildah failed.
    """
    if os.geteuid() != 0:
        raise BaseImageError("debootstrap needs root; run the command as root")
    if missing := [name for name in ("debootstrap", "buildah") if shutil.which(name) is None]:
        raise BaseImageError(f"not installed: {', '.join(missing)} (apt-get install {' '.join(missing)})")
    name = f"{BASE_NAME}:{suite}"
    if engine.size_of(name) and not renew:
        return name
    root = folder / f"base-{suite}"
    complete = folder / f"base-{suite}.complete"
    if renew or not complete.exists():
        complete.unlink(missing_ok=True)
        _debootstrap(root, suite, mirror)
        complete.touch()
    _commit(engine, root, name)
    return name


def _debootstrap(root: Path, suite: str, mirror: str) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(root), mirror]
    subprocess.run(command, check=True)
    for name in UNUSED:
        for entry in (root / name).glob("*"):
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    # As in the image that this one replaces: pip may install into the system's Python, which is also named `python`.
    for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        marker.unlink()
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    if CERTIFICATES.exists():
        shutil.copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))


def _commit(engine: Buildah, root: Path, name: str) -> None:
    def buildah(*words: str) -> str:
        command = [*engine.command, *words]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    container = buildah("from", "scratch")
    try:
        buildah("add", "--quiet", container, str(root), "/")
        variables = [word for key, value in ENVIRONMENT.items() for word in ("--env", f"{key}={value}")]
        buildah("config", *variables, "--cmd", "python3", container)
        buildah("commit", "--quiet", container, name)
    finally:
        buildah("rm", container)
