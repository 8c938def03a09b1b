"""Which proxy leads to an API server: that of the kubeconfig, else that of the environment, as client-go decides.

The rules of `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are those of Go's `golang.org/x/net/http/httpproxy`: names in
upper case first, loopback never goes through a proxy, and NO_PROXY lists hosts (`api.example.com`, which covers its
subdomains), domains (`.example.com`, `*.example.com`), addresses, networks (`10.0.0.0/8`) and `*`, each host or address
perhaps with a port.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

from kaito.runtime.errors import ConfigurationError

SCHEMES: Final = ("http", "https")
"""Of proxies that can be used; an `https` proxy shows a certificate that the cluster's CA file trusts."""

_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}

_Address: TypeAlias = IPv4Address | IPv6Address


def find_proxy(server: str, configured: str, environment: Mapping[str, str]) -> str:
    """The URL of the proxy to a server; empty: none.

    Args:
        server: URL of the API server.
        configured: `proxy-url` of the kubeconfig, which wins; empty when there is none.
        environment: with the proxy variables.

    Raises:
        ConfigurationError: the proxy that would be used is not a URL, or of a kind that cannot be used.
    """
    if configured:
        return _checked(configured, "proxy-url of the kubeconfig")
    target = urlsplit(server)
    for name in ("HTTPS_PROXY", "https_proxy") if target.scheme == "https" else ("HTTP_PROXY", "http_proxy"):
        value = environment.get(name, "").strip()
        if not value:
            continue
        if target.scheme == "http" and environment.get("REQUEST_METHOD"):
            return ""  # A web server's CGI sets HTTP_PROXY from a header of its caller (httpoxy).
        if not _uses_proxy(target, environment.get("NO_PROXY", "") or environment.get("no_proxy", "")):
            return ""
        known = urlsplit(value).scheme in {*SCHEMES, "socks5", "socks5h", "socks4", "socks"} and "://" in value
        return _checked(value if known else f"http://{value}", name)
    return ""


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine: then no proxy is used, as in Go."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    address = _address_of(host)
    return host == "localhost" if address is None else address.is_loopback


def _checked(url: str, source: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        message = f"{source}: not the URL of a proxy: {error}"
        raise ConfigurationError(message) from None
    shown = f"{parts.scheme}://{host}" if parts.scheme and host else "its value"
    if parts.scheme.startswith("socks"):
        message = (
            f"{source}: {shown} is a SOCKS proxy, which is not supported: "
            f"name an http:// proxy that allows CONNECT to the API server"
        )
        raise ConfigurationError(message)
    if parts.scheme not in SCHEMES or not host:
        message = f"{source}: {shown} is not the URL of a proxy: use http://host:port"
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
    """Whether an entry of NO_PROXY matches."""
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
    """Host and port of `host`, `host:port`, `[::1]:port`; a bare IPv6 address has no port."""
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
