"""Translates builds, pushes and exports into the commands of Docker or Buildah.

Used by the command line and by `hack.release`. The command builders are pure functions of their arguments; only
`choose_engine`, `size_of` and `revision_of` start programs.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

CA_SECRET = "/run/secrets/ca"  # noqa: S105 - a path
"""Where the Dockerfiles mount the secret `ca`, a file of certificate authorities."""

REVISION_LABEL = "org.opencontainers.image.revision"

UV_CACHE = "/run/uv-cache"
"""Where Buildah mounts the cache of the machine; an empty directory of this name stays in the image."""


class EngineMissing(Exception):
    """This machine has no program that can build images."""


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What a build uses in place of the defaults of the Dockerfiles."""

    arguments: Mapping[str, str] = field(default_factory=dict[str, str])
    """Build arguments of the Dockerfile, such as BASE_IMAGE and PIP_INDEX_URL."""
    ca_file: Path | None = None
    """Certificate authorities (PEM) that sign the package index; not stored in the image."""
    netrc_file: Path | None = None
    """Credentials of the package index; not stored in the image."""
    uv_cache: Path | None = None
    """Directory of the machine that is used as uv's cache (Buildah only)."""
    platform: str | None = None
    """Such as `linux/arm64`; None for that of the machine."""


class Engine(Protocol):
    """The commands of one program."""

    @property
    def name(self) -> str:
        """The name of the program."""
        ...

    def build(self, dockerfile: str, name: str, options: BuildOptions) -> list[str]:
        """Returns the command that builds the current directory and names the result."""
        ...

    def push(self, name: str, target: str, *, plain_http: bool, compress: bool) -> list[list[str]]:
        """Returns the commands that push the local image `name` as `target`."""
        ...

    def export(self, name: str, archive: Path | None) -> list[str]:
        """Returns the command that writes an archive for `ctr images import`, `docker load` and `podman load`.

        Args:
            name: a local image.
            archive: the file; None for standard output.
        """
        ...

    def size_of(self, name: str) -> str:
        """Returns the size of a local image for people, or an empty string if it does not exist."""
        ...

    def revision_of(self, name: str) -> str:
        """Returns the commit that a local image was built from, according to its label."""
        ...


def _secrets(options: BuildOptions) -> list[str]:
    files = {"ca": options.ca_file, "netrc": options.netrc_file}
    return [word for name, path in files.items() if path for word in ("--secret", f"id={name},src={path}")]


def _arguments(options: BuildOptions) -> list[str]:
    values = dict(options.arguments)
    if options.ca_file:
        values |= {"PIP_CERT": CA_SECRET, "SSL_CERT_FILE": CA_SECRET}
    return [word for name, value in values.items() for word in ("--build-arg", f"{name}={value}")]


@dataclass(frozen=True)
class Docker:
    """Docker with BuildKit."""

    name: str = "docker"

    def build(self, dockerfile: str, name: str, options: BuildOptions) -> list[str]:
        """See `Engine.build`."""
        platform = ["--platform", options.platform] if options.platform else []
        return [
            "docker", "build", "--file", dockerfile, *platform, *_arguments(options), *_secrets(options),
            "--tag", name, ".",
        ]  # fmt: skip

    def push(self, name: str, target: str, *, plain_http: bool, compress: bool) -> list[list[str]]:
        """See `Engine.push`; the daemon decides about plain HTTP (`insecure-registries`) and compression."""
        del plain_http, compress
        return [["docker", "tag", name, target], ["docker", "push", target]]

    def export(self, name: str, archive: Path | None) -> list[str]:
        """See `Engine.export`."""
        return ["docker", "save", *(["--output", str(archive)] if archive else []), name]

    def size_of(self, name: str) -> str:
        """See `Engine.size_of`."""
        found = _output("docker", "image", "inspect", "--format", "{{.Size}}", name)
        return f"{int(found) / 1e6:.0f} MB" if found else ""

    def revision_of(self, name: str) -> str:
        """See `Engine.revision_of`."""
        template = f'{{{{index .Config.Labels "{REVISION_LABEL}"}}}}'
        return _output("docker", "image", "inspect", "--format", template, name) or ""


@dataclass(frozen=True)
class Buildah:
    """Buildah as root, with the chroot isolation, which also works inside a container or without cgroups."""

    storage: Path | None = None
    """Directory for images and containers; None for that of /etc/containers/storage.conf."""
    isolation: str = "chroot"
    name: str = "buildah"

    @property
    def command(self) -> list[str]:
        """The program and its storage options."""
        if self.storage is None:
            return ["buildah"]
        return ["buildah", "--root", str(self.storage / "storage"), "--runroot", str(self.storage / "run")]

    def build(self, dockerfile: str, name: str, options: BuildOptions) -> list[str]:
        """See `Engine.build`."""
        platform = ["--platform", options.platform] if options.platform else []
        cache: list[str] = []
        if options.uv_cache:
            cache = ["--volume", f"{options.uv_cache}:{UV_CACHE}:rw", "--build-arg", f"UV_CACHE_DIR={UV_CACHE}"]
        return [
            *self.command, "build", "--isolation", self.isolation, "--network", "host", "--layers",
            "--file", dockerfile, *platform, *_arguments(options), *_secrets(options), *cache, "--tag", name, ".",
        ]  # fmt: skip

    def push(self, name: str, target: str, *, plain_http: bool, compress: bool) -> list[list[str]]:
        """See `Engine.push`."""
        flags = ["--tls-verify=false"] if plain_http else []
        flags += [] if compress else ["--disable-compression"]
        return [[*self.command, "push", *flags, name, f"docker://{target}"]]

    def export(self, name: str, archive: Path | None) -> list[str]:
        """See `Engine.export`."""
        return [*self.command, "push", name, f"docker-archive:{archive or '/dev/stdout'}:{name}"]

    def size_of(self, name: str) -> str:
        """See `Engine.size_of`."""
        found = _output(*self.command, "images", "--json", name)
        return str(json.loads(found)[0]["size"]) if found else ""

    def revision_of(self, name: str) -> str:
        """See `Engine.revision_of`."""
        template = f'{{{{index .OCIv1.Config.Labels "{REVISION_LABEL}"}}}}'
        return _output(*self.command, "inspect", "--type", "image", "--format", template, name) or ""


def choose_engine(preference: str = "auto", storage: Path | None = None, isolation: str = "chroot") -> Engine:
    """Returns Docker if its engine answers, otherwise Buildah if it is installed.

    Args:
        preference: `docker`, `buildah`, or `auto`.
        storage: see `Buildah.storage`.
        isolation: see `Buildah.isolation`.

    Raises:
        EngineMissing: the message names in one line what is missing.
    """
    has_docker, has_buildah = shutil.which("docker") is not None, shutil.which("buildah") is not None
    if preference in {"auto", "docker"} and has_docker and _output("docker", "info", "--format", "{{.ServerVersion}}"):
        return Docker()
    if preference in {"auto", "buildah"} and has_buildah:
        return Buildah(storage, isolation)
    docker = "docker is installed, but no Docker engine answers" if has_docker else "docker is not installed"
    buildah = "buildah is not installed (apt-get install buildah)"
    found = {"docker": docker, "buildah": buildah}.get(preference, f"{docker}, and {buildah}")
    raise EngineMissing(f"no program can build images here: {found}")


def _output(*words: str) -> str | None:
    """Returns the output of a command; None if it fails or prints nothing."""
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    return result.stdout.strip() or None if result.returncode == 0 else None
