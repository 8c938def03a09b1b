"""Checks names that a Workspace refers to: container images and Kubernetes objects.

The image grammar is that of the OCI distribution's reference package, which container runtimes and registries use.
"""

import re
from typing import Final

_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HOST_PART: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST: Final = re.compile(rf"(?:{_HOST_PART}(?:\.{_HOST_PART})*|\[[0-9a-fA-F:.]+\])(?::([0-9]{{1,5}}))?")
_DIGESTS: Final = {"sha256": 64, "sha512": 128}
_HEX: Final = re.compile(r"[0-9a-f]+")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

_DOCKER_HUB: Final = ("docker.io", "index.docker.io", "registry-1.docker.io")

NAME_LIMIT: Final = 255
"""Longest repository with its registry, in characters (distribution's reference package)."""

OBJECT_NAME_LIMIT: Final = 253
"""Longest name of a Secret or ConfigMap (DNS-1123 subdomain)."""


def image_problem(text: str, *, pushed: bool = False) -> str:
    """Why `text` is not an image reference, with the remedy; empty when it is one.

    Args:
        text: `[registry[:port]/]repository[:tag][@digest]`.
        pushed: the image is written, so that a digest, which follows from the content, cannot be chosen.
    """
    if not text or text != text.strip() or any(letter.isspace() for letter in text):
        return f"{text!r} is not an image reference: write registry/repository:tag without spaces"
    name, at, digest = text.partition("@")
    if at and pushed:
        return f"{text!r} names a digest, which follows from the content: write registry/repository:tag"
    if at and (problem := _digest_problem(digest)):
        return f"{text!r} is not an image reference: {problem}"
    host, path = _split(name)
    path, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        return f"{text!r} is not an image reference: {tag!r} is not a tag (letters, digits, '_', '.', '-')"
    if host and not _is_host(host):
        return f"{text!r} is not an image reference: {host!r} is not a registry host"
    if not _PATH.fullmatch(path):
        hint = ", repositories are in lower case" if path != path.lower() and _PATH.fullmatch(path.lower()) else ""
        return (
            f"{text!r} is not an image reference{hint}: write registry/repository:tag, the repository with lower-case "
            f"letters, digits, '.', '_', '-' and '/'"
        )
    if len(host) + 1 + len(path) > NAME_LIMIT:
        return f"the repository has {len(host) + 1 + len(path)} characters, at most {NAME_LIMIT} are possible"
    return ""


def registry_of(image: str) -> str:
    """Registry of an image reference; Docker Hub where it names none."""
    return _split(image.partition("@")[0])[0] or _DOCKER_HUB[0]


def opens_registry(key: str, image: str) -> bool:
    """Whether an entry of a Docker configuration's `auths` with that key is for the image's registry and path.

    The program in the pod chooses by the same rule: the host is equal, and a path of the key is one of the image.
    """
    host, _, path = key.removeprefix("https://").removeprefix("http://").rstrip("/").partition("/")
    registry = registry_of(image)
    if host not in (_DOCKER_HUB if registry in _DOCKER_HUB else (registry,)):
        return False
    repository = _split(image.partition("@")[0])[1].partition(":")[0]
    return path in {"", "v1", "v2"} or f"{repository}/".startswith(f"{path}/")


def object_name_problem(text: str, kind: str) -> str:
    """Why no object of that kind can have the name, with the remedy; empty when one can."""
    if _SUBDOMAIN.fullmatch(text) and len(text) <= OBJECT_NAME_LIMIT:
        return ""
    return (
        f"{text!r} cannot be the name of a {kind}: use lower-case letters, digits, '-' and '.', beginning and ending "
        f"with a letter or digit"
    )


def _split(name: str) -> tuple[str, str]:
    """Registry and repository. The first part is a registry when it has a dot, a port, or upper-case letters."""
    head, slash, tail = name.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost" or head != head.lower()):
        return head, tail
    return "", name


def _is_host(host: str) -> bool:
    found = _HOST.fullmatch(host)
    return found is not None and (found[1] is None or 0 < int(found[1]) <= 65535)


def _digest_problem(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    length = _DIGESTS.get(algorithm)
    if length is None or len(value) != length or not _HEX.fullmatch(value):
        return f"the digest {digest[:40]!r} is not sha256: with 64 hexadecimal digits"
    return ""
