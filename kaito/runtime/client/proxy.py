"""Finds the proxy of an API server as client-go does: from the kubeconfig, else from the environment.

The rules of `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are those of Go's `golang.org/x/net/http/httpproxy`: upper-case
names take precedence, loopback addresses are never proxied, and NO_PROXY lists hosts (`api.example.com`, which includes
its subdomains), domains (`.example.com`, `*.example.com`), addresses, networks (`10.0.0.0/8`) and `*`. A host or
address may have a port.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

from kaito.runtime.errors import ConfigurationError

SCHEMES: Final = ("http", "https")
"""Supported schemes of proxies; the certificate of an `https` proxy must be trusted by the cluster's CA file."""

_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}

_Address: TypeAlias = IPv4Address | IPv6Address


def find_proxy(server: str, configured: str, environment: Mapping[str, str]) -> str:
    """Returns the URL of the proxy of a server; empty for none.

    Args:
        server: URL of the API server.
        configured: `proxy-url` of the kubeconfig, which takes precedence; may be empty.
        environment: Environment with the proxy variables.

    Raises:
        ConfigurationError: The proxy is not a URL, or its scheme is not supported.
    """
    if configured:
        return _checked(configured, "proxy-url of the kubeconfig")
    target = urlsplit(server)
    for name in ("HTTPS_PROXY", "https_proxy") if target.scheme == "https" else ("HTTP_PROXY", "http_proxy"):
        value = environment.get(name, "").strip()
        if not value:
            continue
        if target.scheme == "http" and environment.get("REQUEST_METHOD"):
            return ""  # In CGI programs HTTP_PROXY may come from a request header (httpoxy).
        if not _uses_proxy(target, environment.get("NO_PROXY", "") or environment.get("no_proxy", "")):
            return ""
        known = urlsplit(value).scheme in {*SCHEMES, "socks5", "socks5h", "socks4", "socks"} and "://" in value
        return _checked(value if known else f"http://{value}", name)
    return ""


def is_loopback(url: str) -> bool:
    """Whether the host of a URL is a loopback address, which is never proxied, as in Go."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    address = _address_of(host)
    return host == "localhost" if address is None else address.is_loopback


def _checked(url: str, source: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        message = f"{source}: not a proxy URL: {error}"
        raise ConfigurationError(message) from None
    shown = f"{parts.scheme}://{host}" if parts.scheme and host else "its value"
    if parts.scheme.startswith("socks"):
        message = (
            f"{source}: {shown} is a SOCKS proxy, which is not supported: "
            f"use an http:// proxy that allows CONNECT to the API server"
        )
        raise ConfigurationError(message)
    if parts.scheme not in SCHEMES or not host:
        message = f"{source}: {shown} is not a proxy URL: use http://host:port"
        raise ConfigurationError(message)
    return url


def _uses_proxy(target: SplitResult, exceptions: str) -> bool:
    host = (target.hostname or "").lower()
    address = _address_of(host)
    if is_loopback(target.geturl()):
        return False
    port = str(target.port or _DEFAULT_PORTS.get(target.scheme, ""))
    entries = [entry.strip().lower() for entry in exceptions.split(",")]
    return not any(_excepts(entry, host, address, port) for entry in entries if entry)


def _excepts(entry: str, host: str, address: _Address | None, port: str) -> bool:
    """Whether an entry of NO_PROXY matches the host."""
    if entry == "*":
        return True
    if "/" in entry:
        try:
            return address is not None and address in ip_network(entry, strict=False)
        except ValueError:
            return False
    name, wanted_port = _split_port(entry)
    if not name or (wanted_port and wanted_port != port):
        return False
    excepted = _address_of(name)
    if excepted is not None:
        return address == excepted
    name = name.removeprefix("*") if name.startswith("*.") else name
    return host.endswith(name) if name.startswith(".") else host == name or host.endswith(f".{name}")


def _split_port(entry: str) -> tuple[str, str]:
    """Splits `host`, `host:port` or `[::1]:port`; an IPv6 address without brackets has no port."""
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        return host, rest.removeprefix(":")
    if entry.count(":") == 1:
        host, _, port = entry.partition(":")
        return host, port
    return entry, ""


def _address_of(host: str) -> _Address | None:
    try:
        address = ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
