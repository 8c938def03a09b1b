"""Validates status URLs of long-running operations before they are read with the provisioner's identity.

The URL is stored in an annotation of the claim, which users may edit. It is therefore read only if scheme, host, port
and path are those of an AKS operation in the configured subscription. The query is not checked: it is signed by Azure
and must be sent unchanged.
"""

import re
from urllib.parse import urlsplit

_PATH = re.compile(
    r"^/subscriptions/(?P<subscription>[^/]+)/providers/microsoft\.containerservice"
    r"/locations/(?P<location>[a-z0-9-]+)/operation(?:s|results|status(?:es)?)/[a-z0-9-]+/?$",
    re.IGNORECASE,
)
_CHARACTERS = re.compile(r"^[A-Za-z0-9\-._~:/?@!$&'()*+,;=%]+$")
"""Characters of a URL without a fragment (RFC 3986); without spaces and line breaks, which could add a header."""

MAX_URL_LENGTH = 16_384
"""Recorded URLs have up to 4,000 characters."""


def is_operation_url(url: str, *, endpoint: str, subscription: str, location: str = "") -> bool:
    """Whether the URL is an AKS operation of the subscription at the endpoint, and of the location, if it is known."""
    if not _CHARACTERS.fullmatch(url) or len(url) > MAX_URL_LENGTH or not is_same_origin(url, endpoint):
        return False
    path = urlsplit(url).path
    found = _PATH.fullmatch(path)
    if found is None or "%" in path or found["subscription"].lower() != subscription.lower():
        return False
    return not location or found["location"].lower() == _normalize(location)


def is_same_origin(url: str, endpoint: str) -> bool:
    """Whether scheme, host and port are those of the endpoint, without a user name."""
    try:
        expected, actual = urlsplit(endpoint), urlsplit(url)
        has_same_port = _port(expected.scheme, expected.port) == _port(actual.scheme, actual.port)
    except ValueError:
        return False
    if "@" in actual.netloc or not actual.hostname:
        return False
    return expected.scheme.lower() == actual.scheme.lower() and expected.hostname == actual.hostname and has_same_port


def _normalize(location: str) -> str:
    """Converts a display name such as `East US` to `eastus`."""
    return location.replace(" ", "").lower()


def _port(scheme: str, port: int | None) -> int | None:
    return port if port is not None else {"http": 80, "https": 443}.get(scheme.lower())
