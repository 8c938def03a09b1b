"""Requests, responses and errors of ARM, independent of an HTTP server.

`server` converts them from and to HTTP, `inprocess` from and to the SDK's pipeline.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True, slots=True)
class ArmRequest:
    """A request to ARM. Header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    base_url: str = ""
    """Scheme and host of the request, for URLs in the response."""
    raw_query: str = ""
    """The query as sent: signed queries are compared unchanged."""

    @classmethod
    def parse(cls, method: str, url: str, headers: Mapping[str, str], body: bytes) -> "ArmRequest":
        """Builds a request from a URL."""
        parts = urlsplit(url)
        return cls(
            method=method.upper(),
            path=parts.path,
            query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in headers.items()},
            body=body,
            base_url=f"{parts.scheme}://{parts.netloc}",
            raw_query=parts.query,
        )

    def json(self) -> dict[str, Any]:
        """Parses the body as a JSON object.

        Raises:
            ArmError: 400, the body is not a JSON object.
        """
        try:
            document: object = json.loads(self.body or b"{}")
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ArmError(400, "InvalidRequestContent", "The request content is not a JSON object.")
        return cast("dict[str, Any]", document)


@dataclass(frozen=True, slots=True)
class ArmResponse:
    """A response: status, JSON body or bytes, and headers. `drop` closes the connection without a response."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    drop: bool = False

    def encode(self) -> bytes:
        """Encodes the body: bytes unchanged, None as empty, other values as JSON."""
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class ArmError(Exception):
    """An error response of ARM: HTTP status, error code, message, and details."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Sequence[Mapping[str, Any]] = (),
        flat: bool = False,
        target: str = "",
        subcode: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.flat = flat
        """Whether the fields are at the top level, as in errors of the container service, instead of below `error`."""
        self.target = target
        self.subcode = subcode
        self.headers = dict(headers or {})

    def document(self) -> dict[str, Any]:
        """The error object with code, message and details."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details:
            error["details"] = [dict(detail) for detail in self.details]
        if self.target:
            error["target"] = self.target
        return error

    def response(self) -> ArmResponse:
        """The response with this error."""
        body = (
            {"details": None, "subcode": self.subcode, **self.document()} if self.flat else {"error": self.document()}
        )
        return ArmResponse(self.status, body, self.headers)


def in_progress(pool: str, state: str) -> ArmError:
    """409: another operation on the pool is running."""
    return ArmError(
        409,
        "OperationNotAllowed",
        f"Operation is not allowed: Another operation ({pool} - {state}) is in progress, "
        "please wait for it to finish before starting a new operation.",
    )
