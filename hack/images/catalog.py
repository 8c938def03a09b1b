"""Lists the images of the repository and their names in a registry."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

DEFAULT_REGISTRY = "kaito"
"""Prefix of the image names that the controllers and the manifests use by default."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """A container image and the exact requirements that it installs."""

    name: str
    dockerfile: str
    requirements: str


IMAGES = (
    Image(name="workspace-controller", dockerfile="Dockerfile.workspace", requirements="requirements/workspace.txt"),
    Image(name="gpu-provisioner", dockerfile="Dockerfile.provisioner", requirements="requirements/provisioner.txt"),
    Image(name="console", dockerfile="kaito/console/Dockerfile", requirements="requirements/workspace.txt"),
    Image(
        name="kaito-serving",
        dockerfile="presets/images/Dockerfile.serving",
        requirements="requirements/presets-tuning.txt",
    ),
    Image(name="kaito-vllm", dockerfile="presets/images/Dockerfile.vllm", requirements="requirements/vllm.txt"),
)


class UnknownImage(Exception):
    """The repository does not contain an image of this name."""


def select(names: Sequence[str]) -> list[Image]:
    """Returns the images of these names, in the order of the catalog; all of them without names.

    Raises:
        UnknownImage: a name is not in the catalog.
    """
    known = {image.name for image in IMAGES}
    if unknown := [name for name in names if name not in known]:
        choices = ", ".join(image.name for image in IMAGES)
        raise UnknownImage(f"{', '.join(unknown)}: not an image of this repository; choose from {choices}")
    return [image for image in IMAGES if not names or image.name in names]


@dataclass(frozen=True)
class Source:
    """The version and the commit that the images are built from."""

    version: str
    revision: str
    """Commit hash; with the suffix `-dirty` if tracked files differ from it, `unknown` outside of a checkout."""
    created: str
    """Time of the commit, RFC 3339, so that a rebuild of the same commit has the same label."""

    def build_arguments(self) -> dict[str, str]:
        """Returns the build arguments that the labels of the images are made from."""
        return {"VERSION": self.version, "REVISION": self.revision, "CREATED": self.created}


def read_source(root: Path = ROOT) -> Source:
    """Reads the version file and the commit of a checkout."""
    version = (root / "VERSION").read_text(encoding="utf-8").strip()
    shown = _git(root, "show", "--no-patch", "--format=%H %ct")
    if shown is None:
        return Source(version, "unknown", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    revision, seconds = shown.split()
    dirty = _git(root, "status", "--porcelain", "--untracked-files=no")
    created = datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Source(version, f"{revision}-dirty" if dirty else revision, created)


def commit_tag(revision: str) -> str | None:
    """Returns the first twelve digits of a commit hash; None if the files were not those of a commit."""
    return None if revision in {"", "unknown"} or revision.endswith("-dirty") else revision[:12]


def full_name(registry: str, image: Image, tag: str) -> str:
    """Returns the full reference of an image.

    A registry whose first component is not a host name is below docker.io, as Kubernetes and Docker read it; Buildah
    would read it as below `localhost`.
    """
    host = registry.partition("/")[0]
    prefix = registry if "." in host or ":" in host or host == "localhost" else f"docker.io/{registry}"
    return f"{prefix}/{image.name}:{tag}"


def _git(root: Path, *words: str) -> str | None:
    """Returns the output of a git command; None if git or the repository is missing."""
    try:
        result = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
