"""The parts of an API server's URL that a request needs."""

from dataclasses import dataclass
from typing import Self, final
from urllib.parse import quote, urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
_PATH_CHARACTERS = "/%:@!$&'()*+,;=~"
"""Characters of a path that are not encoded, besides letters, digits and `-._`."""


@final
@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Address of an API server."""

    secure: bool
    """Whether the scheme is https."""
    host: str
    """Host name or address, without brackets; international names are encoded."""
    port: int
    prefix: str
    """Encoded path before that of a request, without a slash at the end."""
    authority: str
    """Host and port as in the URL, for the `host` label of metrics."""
    host_header: str
    """Value of the header `host`."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parses a URL, which `ClusterConfig` has checked."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if not host.isascii():
            host = host.encode("idna").decode()
        default = _DEFAULT_PORTS.get(parts.scheme, 80)
        port = parts.port or default
        name = f"[{host}]" if ":" in host else host
        return cls(
            secure=parts.scheme == "https",
            host=host,
            port=port,
            prefix=quote(parts.path, safe=_PATH_CHARACTERS).rstrip("/"),
            authority=parts.netloc.rpartition("@")[2],
            host_header=name if port == default else f"{name}:{port}",
        )
