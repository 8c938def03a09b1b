"""Image references: `[host[:port]/]path[:tag][@digest]`, resolved the way docker resolves them.

Used wherever an image is named. Grammar: distribution's reference package.
"""

import re
from dataclasses import dataclass
from typing import Final

from kaito_presets.errors import ConfigurationError

_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_HOST: Final = re.compile(r"[A-Za-z0-9.-]+(?::\d+)?|\[[0-9a-fA-F:]+\](?::\d+)?")
_LOOPBACK: Final = re.compile(r"localhost|127(?:\.\d+){3}|\[::1\]")
DOCKER_HUB: Final = "docker.io"
DOCKER_HUB_API: Final = "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class Reference:
    """An image in a registry."""

    host: str
    path: str
    tag: str
    digest: str | None = None

    def __str__(self) -> str:
        return f"{self.host}/{self.path}:{self.tag}" if not self.digest else f"{self.host}/{self.path}@{self.digest}"

    @property
    def version(self) -> str:
        """What the manifest is asked for by."""
        return self.digest or self.tag

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is on this machine, where docker too speaks plain HTTP."""
        return bool(_LOOPBACK.fullmatch(self.host.rpartition(":")[0] if self.host[-1:].isdigit() else self.host))

    @property
    def api_host(self) -> str:
        """Host that answers the protocol."""
        return DOCKER_HUB_API if self.host == DOCKER_HUB else self.host


def parse_reference(text: str) -> Reference:
    """Read a reference.

    Raises:
        ConfigurationError: not one.
    """
    rest, _, digest = text.strip().partition("@")
    head, slash, tail = rest.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost"):
        host, name = head, tail
    else:
        host, name = DOCKER_HUB, rest
    path, colon, tag = name.partition(":")
    if host == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    valid = (
        _HOST.fullmatch(host)
        and _PATH.fullmatch(path)
        and (not colon or _TAG.fullmatch(tag))
        and (not digest or _DIGEST.fullmatch(digest))
    )
    if not valid:
        raise ConfigurationError(f"{text!r} is not an image reference (expected host/path:tag)")
    return Reference(host, path, tag or "latest", digest or None)
