"""Checks the URLs of a tuning data set: public http(s) addresses, and addresses in the cluster if the operator allows
them.

The node and the cloud's metadata service are always rejected. Admission and the controller check the URLs of a
Workspace, and the downloader in the pod checks the target of every redirect. Host names are not resolved, because a
public storage name may legitimately resolve to a private endpoint.
"""

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

_LOOPBACK_NAMES: Final = frozenset(
    {"localhost", "localhost.localdomain", "localhost6", "localhost6.localdomain6", "ip6-localhost", "ip6-loopback"}
)
"""Names of the local machine in the hosts files of common images."""

_METADATA_HOSTS: Final = frozenset({"metadata.google.internal", "metadata.google", "instance-data.ec2.internal"})
"""Names of cloud metadata services (upstream Kaito v0.12 rejects the same names)."""

_METADATA_ADDRESSES: Final = frozenset({"169.254.169.254", "168.63.129.16", "100.100.100.200", "fd00:ec2::254"})
"""Addresses of metadata services and of Azure's host agent."""

_NAT64: Final = IPv6Network("64:ff9b::/96")

_INTERNAL_SUFFIXES: Final = (".local", ".internal", ".svc", ".home.arpa")

_RESERVED_DOMAINS: Final = frozenset(
    {"corp", "home", "intranet", "invalid", "lan", "localdomain", "private", "default", "test"}
)
"""Top-level names that public resolvers do not resolve (RFC 6761, RFC 6762 appendix G), and the namespace `default`."""

_PUBLIC_DOMAIN: Final = re.compile(r"[a-z]{2,63}|xn--[a-z0-9-]+")
"""Top-level domains: letters, or an encoded international name (RFC 1123, RFC 5890)."""

_DATASET_VIEWS: Final = frozenset({"blob", "raw", "resolve", "tree", "viewer"})
"""Path segments that follow the name of a dataset on Hugging Face."""

_GITHUB_FILE: Final = 4
"""Path segments of the page of a file on GitHub before the file: organization, name, `blob`, and the branch."""

_HOST_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")


def url_problem(url: str, *, in_cluster: bool = False) -> str | None:
    """Returns why a URL is rejected, with the remedy, or None if it is allowed.

    Args:
        url: the URL; its scheme may be in upper case.
        in_cluster: whether names and private addresses inside the cluster are allowed.
    """
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".").lower()
        _ = parts.port
    except ValueError:
        return f"{url!r} is not a URL: give an absolute http or https address"
    if parts.scheme.lower() not in {"http", "https"} or not host:
        return f"{url!r} is not an absolute http or https URL: begin with https:// and a host name"
    if any(letter.isspace() or not letter.isprintable() for letter in url):
        return f"{url!r} contains white space: write it as %20, or remove it"
    if _address(host) is None and not _HOST_NAME.fullmatch(_ascii(host)):
        return f"{url!r} is not a URL: {host!r} is not the name of a host"
    if _is_forbidden(host):
        return f"{url!r} points inside the cluster or the cloud: use a public address, not the node or its metadata"
    if not in_cluster and _is_inside(host):
        return (
            f"{url!r} points inside the cluster or the cloud: use a public address or tuning.input.volumeSource, or "
            f"start the controller with --allow-in-cluster-data-urls"
        )
    return None


def page_problem(url: str) -> str | None:
    """Returns why a URL is that of a web page about a file and not of the file, with the remedy; None if it is not.

    Only pages of Hugging Face and of GitHub are recognized.
    """
    parts = urlsplit(url)
    host, path = (parts.hostname or "").lower(), [segment for segment in parts.path.split("/") if segment]
    page = f"{url!r} is a page and not a file"
    if host == "github.com" and len(path) > _GITHUB_FILE and path[2] == "blob":
        return f"{page}: use https://raw.githubusercontent.com/{'/'.join(path[:2] + path[3:])}"
    if host not in {"huggingface.co", "hf.co"} or path[:1] != ["datasets"]:
        return None
    name_ends = 2 if _DATASET_VIEWS.intersection(path[2:3]) else 3  # the first datasets have no organization
    repository, view = f"https://{host}/{'/'.join(path[:name_ends])}", "".join(path[name_ends : name_ends + 1])
    if view in {"", "tree", "viewer"}:
        return f"{page}: use the address of a file, such as {repository}/resolve/main/FILE"
    if view == "blob":
        return f"{page}: use {repository}/resolve/{'/'.join(path[name_ends + 1 :])}"
    return None


def _is_forbidden(host: str) -> bool:
    """Returns whether the host is the local machine, a metadata service, or a disguised or reserved address."""
    if host in _LOOPBACK_NAMES or host.endswith(".localhost") or host in _METADATA_HOSTS:
        return True
    address = _address(host)
    if address is None:
        return _is_disguised_address(host)
    real = _embedded(address) or address
    special = real.is_loopback or real.is_link_local or real.is_multicast or real.is_unspecified or real.is_reserved
    return special or str(real) in _METADATA_ADDRESSES


def _is_inside(host: str) -> bool:
    """Returns whether the host is a name that only the cluster resolves, or an address that is not public.

    The search domains of a pod complete a name without a dot, so it is a Service of the namespace. A name whose last
    part is not a public domain is completed too: `minio.my-data` is the Service minio in the namespace my-data.
    """
    address = _address(host)
    if address is not None:
        return not address.is_global or not (_embedded(address) or address).is_global
    last = _ascii(host).rsplit(".", 1)[-1]
    public = _PUBLIC_DOMAIN.fullmatch(last) and last not in _RESERVED_DOMAINS
    return "." not in host or host.endswith(_INTERNAL_SUFFIXES) or not public


def _embedded(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """Returns the IPv4 address in an IPv6 address: mapped, 6to4, or with NAT64's well-known prefix (RFC 6052)."""
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _ascii(host: str) -> str:
    """Encodes a name as in a DNS query; returns an empty text if it cannot be encoded."""
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return ""


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_disguised_address(host: str) -> bool:
    """Returns whether the host is an IPv4 address in a form that only C libraries accept (`0x7f.1`, `2130706433`)."""
    last = host.rsplit(".", 1)[-1]
    return last.isdigit() or last.startswith("0x")
