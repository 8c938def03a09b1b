"""Writes the bytes of a request."""

from collections.abc import Mapping, Sequence
from typing import Final

_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
"""Methods whose requests have a length even without a body (RFC 9110, section 8.6)."""


Headers = Mapping[str, str] | Sequence[tuple[str, str]]
"""Headers of a request; a sequence may contain a name several times."""


def request_bytes(method: str, target: str, host: str, headers: Headers, body: bytes | None) -> bytes:
    """Returns a request as it is sent.

    Args:
        method: method.
        target: encoded path with its query; sent as it is.
        host: value of the header `host`.
        headers: the other headers.
        body: the body, if there is one.

    Raises:
        ValueError: the target or a header contains a line break or a null byte, which would start another header.
    """
    lines = [f"{method} {target} HTTP/1.1", f"host: {host}"]
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    lines += [f"{name}: {value}" for name, value in pairs]
    if body is not None or method in _WITH_BODY:
        lines.append(f"content-length: {len(body or b'')}")
    head = "\r\n".join(lines).encode("utf-8", "surrogateescape")
    breaks = len(lines) - 1
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
        message = f"{method} {target!r}: a line break or a null byte in the target or a header"
        raise ValueError(message)
    return head + b"\r\n\r\n" + (body or b"")
