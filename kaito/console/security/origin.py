"""Checks the addresses that browsers send: Host against DNS rebinding, Origin and a header against other sites.

A page of another site can make a browser send requests to a loopback address. Its requests carry another Origin, cannot
have the header, and with a rebound DNS name another Host.
"""

from collections.abc import Iterable
from typing import Final, final
from urllib.parse import urlsplit

from aiohttp import web

from kaito.console.security.refusal import Refusal
from kaito.console.settings import LOOPBACK, ConsoleSettings

WRITE_HEADER: Final = "X-Kaito-Console"
"""Pages of other sites cannot send it without a preflight request, which the console does not answer."""

_READS: Final = frozenset({"GET", "HEAD"})
WILDCARDS: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared, not bound
"""Addresses that stand for all of the machine's, and that no browser can open."""

_SAME_SITE: Final = frozenset({"same-origin", "none"})


@final
class OriginCheck:
    """Checks requests against the addresses of the console, which are known once it listens."""

    def __init__(self, hosts: Iterable[str] = ()) -> None:
        self._hosts: frozenset[str] = frozenset()
        self.accept(hosts)

    def accept(self, hosts: Iterable[str]) -> None:
        """Sets the accepted values of the Host header."""
        self._hosts = frozenset(host.lower() for host in hosts)

    def check(self, request: web.Request) -> None:
        """Checks a request.

        Raises:
            Refusal: the request was sent to another name, by a page of another site, or is a write without the header.
        """
        host = request.headers.get("Host", "").lower()
        if host not in self._hosts:
            raise Refusal(403, f"the Host header {host!r} is not an address of the console: open the printed link")
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc.lower() not in self._hosts:
            raise Refusal(403, f"requests of the origin {origin} are not accepted: use the console's own page")
        is_read = request.method in _READS
        site = request.headers.get("Sec-Fetch-Site", "none")
        if site not in _SAME_SITE and not (is_read and _is_navigation(request)):
            raise Refusal(403, "requests of pages of other sites are not accepted: use the console's own page")
        if not is_read and request.headers.get(WRITE_HEADER) != "1":
            raise Refusal(403, f"the header {WRITE_HEADER}: 1 is missing: send it with every request that writes")


def _is_navigation(request: web.Request) -> bool:
    """Whether the user follows a link to the console, and the page that has the link cannot read the response."""
    return request.headers.get("Sec-Fetch-Mode") == "navigate"


def accepted_hosts(settings: ConsoleSettings, port: int) -> set[str]:
    """Returns the accepted values of the Host header."""
    names = {"localhost", LOOPBACK, "[::1]"}
    if settings.address not in WILDCARDS:
        names.add(f"[{settings.address}]" if ":" in settings.address else settings.address)
    return {f"{name}:{port}" for name in names} | (names if port == 80 else set[str]()) | set(settings.hosts)
