"""Rules for the URLs of a tuning data set: public http(s); addresses in the cluster only where the operator allows it.

The node itself and the cloud's metadata service are always refused. Admission and the controller ask for the URLs of a
Workspace, the downloader in the pod for every redirect. Names are not resolved: a private endpoint of a public storage
name is a common and wanted case.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

_METADATA_HOSTS: Final = frozenset({"metadata.google.internal", "metadata.google", "instance-data.ec2.internal"})
"""Names of cloud metadata services (upstream Kaito v0.12 refuses the same ones)."""

_METADATA_ADDRESSES: Final = frozenset({"169.254.169.254", "168.63.129.16", "100.100.100.200", "fd00:ec2::254"})
"""Addresses of metadata services and of Azure's host agent."""

_INTERNAL_SUFFIXES: Final = (".local", ".internal", ".svc")


def refusal(url: str, *, in_cluster: bool = False) -> str | None:
    """Why a URL is refused, with the remedy; None when it is fine.

    Args:
        url: as the user wrote it. The scheme may be in any case.
        in_cluster: names and private addresses inside the cluster are allowed.
    """
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".").lower()
        _ = parts.port
    except ValueError:
        return f"{url!r} is not a URL: give an absolute http or https address"
    if parts.scheme.lower() not in {"http", "https"} or not host:
        return f"{url!r} is not an absolute http or https URL: begin with https:// and a host name"
    if _is_forbidden(host):
        return f"{url!r} points inside the cluster or the cloud: use a public address, not the node or its metadata"
    if not in_cluster and _is_inside(host):
        return (
            f"{url!r} points inside the cluster or the cloud: use a public address or tuning.input.volumeSource, or "
            f"start the controller with --allow-in-cluster-data-urls"
        )
    return None


def _is_forbidden(host: str) -> bool:
    """Whether the host is this machine, a metadata service, or a disguised or reserved address: never allowed."""
    if host == "localhost" or host.endswith(".localhost") or host in _METADATA_HOSTS:
        return True
    address = _address(host)
    if address is None:
        return _is_disguised_address(host)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    real = mapped or address
    special = real.is_loopback or real.is_link_local or real.is_multicast or real.is_unspecified or real.is_reserved
    return special or str(real) in _METADATA_ADDRESSES


def _is_inside(host: str) -> bool:
    """Whether the host is a name that only the cluster resolves, or an address that is not public.

    A name without a dot is completed by the pod's search domains, so it is a Service of the namespace.
    """
    address = _address(host)
    if address is not None:
        return not address.is_global
    return "." not in host or host.endswith(_INTERNAL_SUFFIXES)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_disguised_address(host: str) -> bool:
    """Whether the host is an IPv4 address in a spelling only C libraries read (`0x7f.1`, `2130706433`)."""
    last = host.rsplit(".", 1)[-1]
    return last.isdigit() or last.startswith("0x")
