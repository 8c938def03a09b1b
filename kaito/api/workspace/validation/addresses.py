"""Which URLs a tuning Job may download from: public http(s), never the cluster, the node or the cloud's metadata.

Names are not resolved here (admission makes no network call); the downloader in the tuning image checks the address it
really connects to.
"""

from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

_METADATA_HOSTS: Final = frozenset({"metadata.google.internal", "metadata.google", "instance-data.ec2.internal"})
"""Names of cloud metadata services (upstream Kaito v0.12 refuses the same ones)."""

_INTERNAL_SUFFIXES: Final = (".localhost", ".local", ".internal", ".svc")


def refusal(url: str) -> str | None:
    """Why a URL is refused, with the remedy; None when it is fine."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".").lower()
        _ = parts.port
    except ValueError:
        return f"{url!r} is not a URL: give an absolute http or https address"
    if parts.scheme not in {"http", "https"} or not host:
        return f"{url!r} is not an absolute http or https URL: begin with https:// and a host name"
    if host == "localhost" or host in _METADATA_HOSTS or host.endswith(_INTERNAL_SUFFIXES) or _is_private(host):
        return f"{url!r} points inside the cluster or the cloud: use a public address, or tuning.input.volumeSource"
    return None


def _is_private(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return _is_disguised_address(host)
    return not address.is_global or address.is_multicast


def _is_disguised_address(host: str) -> bool:
    """Whether the host is an IPv4 address in a spelling only C libraries read (`0x7f.1`, `2130706433`)."""
    last = host.rsplit(".", 1)[-1]
    return last.isdigit() or last.startswith("0x")
