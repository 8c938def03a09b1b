"""Addresses of long-running operations: which ones are read with our identity.

A claim carries the address of its operation in an annotation, and users who may edit claims can write any there. So
an address is only read if it is one that AKS gives for operations of our own subscription, by scheme, host, port and
path; the query is not matched. The query is signed and travels byte for byte.
"""

import re
from urllib.parse import urlsplit

_PATH = re.compile(
    r"^/subscriptions/(?P<subscription>[^/]+)/providers/microsoft\.containerservice"
    r"/locations/(?P<location>[a-z0-9-]+)/operation(?:s|results|status(?:es)?)/[a-z0-9-]+/?$",
    re.IGNORECASE,
)
_CHARACTERS = re.compile(r"^[A-Za-z0-9\-._~:/?@!$&'()*+,;=%]+$")
"""Those of a URL without a fragment (RFC 3986). No space and no control character can start a header of its own."""

LONGEST_ADDRESS = 16_384
"""Recorded addresses have up to 4 thousand characters."""


def is_operation(url: str, *, endpoint: str, subscription: str, location: str = "") -> bool:
    """Whether the address is an operation of AKS in our subscription, at our resource manager.

    `location` is compared when it is known.
    """
    if not _CHARACTERS.fullmatch(url) or len(url) > LONGEST_ADDRESS or not is_same_origin(url, endpoint):
        return False
    path = urlsplit(url).path
    found = _PATH.fullmatch(path)
    if found is None or "%" in path or found["subscription"].lower() != subscription.lower():
        return False
    return not location or found["location"].lower() == _plain(location)


def is_same_origin(url: str, endpoint: str) -> bool:
    """Whether scheme, host and port are those of the endpoint, and no user name is in front of them."""
    try:
        ours, theirs = urlsplit(endpoint), urlsplit(url)
        same_port = _port(ours.scheme, ours.port) == _port(theirs.scheme, theirs.port)
    except ValueError:
        return False
    if "@" in theirs.netloc or not theirs.hostname:
        return False
    return ours.scheme.lower() == theirs.scheme.lower() and ours.hostname == theirs.hostname and same_port


def _plain(location: str) -> str:
    """`East US` is `eastus`."""
    return location.replace(" ", "").lower()


def _port(scheme: str, port: int | None) -> int | None:
    return port if port is not None else {"http": 80, "https": 443}.get(scheme.lower())
