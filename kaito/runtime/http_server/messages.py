"""Requests, responses, and the pages of a server."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, final

MAX_HEAD_BYTES: Final = 2**16
"""Maximum size of the request line with all headers, and of the trailers."""

MAX_HEADERS: Final = 200
"""Maximum number of header lines."""

READ_METHODS: Final = ("GET", "HEAD")


@final
@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A complete request."""

    method: str
    path: str
    """Decoded, without the query."""
    query: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """The values of each parameter."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Names are in lower case; a repeated header has its values joined by commas."""
    body: bytes = b""
    is_cut: bool = False
    """Whether the body is larger than its page allows; `body` is then its beginning."""

    def parameter(self, name: str) -> str:
        """Returns the first value of a parameter; empty if it is not given."""
        return next(iter(self.query.get(name, ())), "")


@final
@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response of known length."""

    body: bytes = b""
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of_text(cls, text: str, status: int = 200) -> "HttpResponse":
        """Returns a response with a text."""
        return cls(text.encode(), status)


Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]


@final
@dataclass(frozen=True, slots=True)
class Page:
    """What is served at a path."""

    handler: Handler
    methods: Sequence[str] = READ_METHODS
    max_body: int = 0
    """Bytes of the body that are kept for the handler."""


Pages = Mapping[str, Page]
"""Pages by path. The page of a path that ends with a slash serves every name below it."""


def find_page(pages: Pages, path: str) -> Page | None:
    """Returns the page of a path; None if there is none."""
    if path.endswith("/"):
        return None
    return pages.get(path) or pages.get(f"{path.rpartition('/')[0]}/")
