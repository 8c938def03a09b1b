"""What travels between an ARM client and the simulator: exchanges, answers, and the two error shapes ARM uses.

Independent of any HTTP server: `server` puts it on a socket, `inprocess` hands it to the SDK's pipeline directly.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request as ARM sees it. Header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    base_url: str = ""
    """Scheme and host the client used; absolute URLs in answers start with it."""
    raw_query: str = ""
    """The query as it was sent: signed addresses are compared byte for byte."""

    @classmethod
    def parse(cls, method: str, url: str, headers: Mapping[str, str], body: bytes) -> "Exchange":
        """From a full URL."""
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
        """The body as an object.

        Raises:
            ArmError: 400 when it is not one.
        """
        try:
            document: object = json.loads(self.body or b"{}")
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ArmError(400, "InvalidRequestContent", "The request content is not a JSON object.")
        return cast("dict[str, Any]", document)


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, a JSON body (or raw bytes) and headers. `drop` closes the connection without answering."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    drop: bool = False

    def encode(self) -> bytes:
        """The body's bytes: raw bytes as they are, `None` as nothing, anything else as JSON."""
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class ArmError(Exception):
    """A refusal in ARM's words: HTTP status, error code, message, and nested details."""

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
        """The container service's own shape: the fields at the top level instead of below `error`."""
        self.target = target
        self.subcode = subcode
        self.headers = dict(headers or {})

    def document(self) -> dict[str, Any]:
        """The error object: code, message, and details where there are any."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details:
            error["details"] = [dict(detail) for detail in self.details]
        if self.target:
            error["target"] = self.target
        return error

    def answer(self) -> Answer:
        """The response carrying this error."""
        body = (
            {"details": None, "subcode": self.subcode, **self.document()} if self.flat else {"error": self.document()}
        )
        return Answer(self.status, body, self.headers)


def in_progress(pool: str, doing: str) -> ArmError:
    """409: another operation on the pool has not ended."""
    return ArmError(
        409,
        "OperationNotAllowed",
        f"Operation is not allowed: Another operation ({pool} - {doing}) is in progress, "
        "please wait for it to finish before starting a new operation.",
    )
