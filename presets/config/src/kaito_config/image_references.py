"""Parses container image references: `[registry[:port]/]repository[:tag][@digest]`.

The grammar is that of the OCI distribution's reference package, which container runtimes and registries use. Admission
and the controller validate the images of a Workspace with it; the programs in the pod pull and push with it.
"""

import re
from dataclasses import dataclass
from typing import Final, final

_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HOST_PART: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST: Final = re.compile(rf"(?:{_HOST_PART}(?:\.{_HOST_PART})*|\[[0-9a-fA-F:.]+\])(?::([0-9]{{1,5}}))?")
_LOOPBACK: Final = re.compile(r"(?:localhost|127(?:\.\d+){3}|\[::1\])(?::\d+)?")
_DIGEST_LENGTHS: Final = {"sha256": 64, "sha512": 128}
_HEX: Final = re.compile(r"[0-9a-f]+")

DOCKER_HUB: Final = "docker.io"
DOCKER_HUB_API: Final = "registry-1.docker.io"
_DOCKER_HUB_NAMES: Final = (DOCKER_HUB, "index.docker.io", DOCKER_HUB_API)
"""Names under which configurations of Docker clients list credentials for Docker Hub."""

MAX_NAME_LENGTH: Final = 255
"""Longest registry and repository together, in characters (distribution's reference package)."""


class ImageReferenceError(ValueError):
    """The text is not an image reference; the message contains the text, the problem and the remedy."""


@final
@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image in a registry, resolved as Docker resolves it."""

    registry: str
    """Host with port; Docker Hub if the text has none."""
    repository: str
    tag: str
    digest: str | None = None

    def __str__(self) -> str:
        name = f"{self.registry}/{self.repository}"
        return f"{name}@{self.digest}" if self.digest else f"{name}:{self.tag}"

    @property
    def version(self) -> str:
        """The digest or else the tag: the last part of the manifest's URL."""
        return self.digest or self.tag

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is on this machine. Docker uses plain HTTP for such registries."""
        return _LOOPBACK.fullmatch(self.registry) is not None

    @property
    def api_host(self) -> str:
        """Host that serves the registry API."""
        return DOCKER_HUB_API if self.registry == DOCKER_HUB else self.registry

    def match_credentials(self, key: str) -> int:
        """Returns how specific an entry of a Docker configuration's `auths` is for this image; 0 if it does not match.

        The registries must be equal, and the path of the key, if any, must be a prefix of the repository. Of several
        matching entries the most specific one is used, as in the kubelet.
        """
        registry, _, path = key.removeprefix("https://").removeprefix("http://").rstrip("/").partition("/")
        if path in {"v1", "v2"}:
            path = ""
        if registry not in (_DOCKER_HUB_NAMES if self.registry in _DOCKER_HUB_NAMES else (self.registry,)):
            return 0
        if path and not f"{self.repository}/".startswith(f"{path}/"):
            return 0
        return len(registry) + len(path)


def parse_image_reference(text: str) -> ImageReference:
    """Parses an image reference; the tag defaults to `latest`.

    Raises:
        ImageReferenceError: the text does not follow the grammar.
    """
    if not text or any(letter.isspace() for letter in text):
        raise ImageReferenceError(f"{text!r} is not an image reference: write registry/repository:tag without spaces")
    name, at, digest = text.partition("@")
    if at and (problem := _digest_problem(digest)):
        raise ImageReferenceError(f"{text!r} is not an image reference: {problem}")
    registry, rest = _split_registry(name)
    repository, colon, tag = rest.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise ImageReferenceError(
            f"{text!r} is not an image reference: {tag!r} is not a tag (letters, digits, '_', '.', '-')"
        )
    if registry and not _is_host(registry):
        raise ImageReferenceError(f"{text!r} is not an image reference: {registry!r} is not a registry host")
    if not _REPOSITORY.fullmatch(repository):
        lower = repository.lower()
        hint = ", repositories are in lower case" if repository != lower and _REPOSITORY.fullmatch(lower) else ""
        raise ImageReferenceError(
            f"{text!r} is not an image reference{hint}: write registry/repository:tag, the repository with lower-case "
            f"letters, digits, '.', '_', '-' and '/'"
        )
    length = len(registry) + 1 + len(repository)
    if length > MAX_NAME_LENGTH:
        raise ImageReferenceError(f"the repository has {length} characters, at most {MAX_NAME_LENGTH} are possible")
    if not registry or registry == DOCKER_HUB:
        registry = DOCKER_HUB
        repository = repository if "/" in repository else f"library/{repository}"
    return ImageReference(registry, repository, tag or "latest", digest or None)


def _split_registry(name: str) -> tuple[str, str]:
    """Splits registry and the rest. The first part is a registry if it has a dot, a port, or upper-case letters."""
    head, slash, tail = name.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost" or head != head.lower()):
        return head, tail
    return "", name


def _is_host(host: str) -> bool:
    found = _HOST.fullmatch(host)
    return found is not None and (found[1] is None or 0 < int(found[1]) <= 65535)


def _digest_problem(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    length = _DIGEST_LENGTHS.get(algorithm)
    if length is None or len(value) != length or not _HEX.fullmatch(value):
        return f"the digest {digest[:40]!r} is not sha256: with 64 hexadecimal digits"
    return ""
