"""Decodes and encodes AdmissionReviews of v1 and v1beta1; the response has the version of the request.

The response to an invalid request is still a review with apiVersion and kind, and the uid if it could be read. Without
them the API server reports a protocol error instead of the reason, as it does with controller-runtime.
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from kaito.runtime.client.patch import is_object
from kaito.runtime.errors import ApiError
from kaito.runtime.webhook.declaration import Problem
from kaito.runtime.webhook.patching import Operation

GROUP = "admission.k8s.io"
VERSIONS = ("v1", "v1beta1")

WARNINGS_LENGTH = 4096
"""Maximum characters of all warnings of a response: API servers cut the rest (Kubernetes documentation)."""

_REASONS = {400: "BadRequest", 403: "Forbidden", 413: "RequestEntityTooLarge", 422: "Invalid", 500: "InternalError"}
_OBJECTS = msgspec.json.Decoder(dict[str, Any])
_UID = re.compile(rb'"uid"\s*:\s*"([^"]{1,64})"')


class BadReview(Exception):
    """The body is not a valid AdmissionReview; contains what the response needs."""

    def __init__(self, message: str, *, version: str = "v1", uid: str = "", code: int = 400) -> None:
        super().__init__(message)
        self.version = version
        self.uid = uid
        self.code = code


@dataclass(frozen=True, slots=True)
class AdmissionReview:
    """A decoded review; the request is still untyped."""

    version: str
    uid: str
    request: Mapping[str, Any]
    trace: Mapping[str, str] = field(default_factory=dict[str, str])
    """Annotation with the trace context that a new object gets; empty for none."""


def parse_review(body: bytes) -> AdmissionReview:
    """Decodes the body of a request.

    Raises:
        BadReview: the body is not a valid AdmissionReview.
    """
    uid = find_uid(body)
    try:
        document = _OBJECTS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"the body is not a JSON object, or it is nested too deeply: {error}"
        raise BadReview(message, uid=uid) from error
    group, _, version = str(document.get("apiVersion", "")).rpartition("/")
    if group != GROUP or version not in VERSIONS or document.get("kind") != "AdmissionReview":
        message = (
            f"expected an AdmissionReview of {GROUP}/v1 or v1beta1, got {document.get('apiVersion')!r}, "
            f"{document.get('kind')!r}"
        )
        raise BadReview(message, uid=uid, version=version if version in VERSIONS else "v1")
    request: object = document.get("request")
    if not is_object(request) or not isinstance(request.get("uid"), str):
        message = "the review has no request with a uid"
        raise BadReview(message, version=version, uid=uid)
    return AdmissionReview(version, str(request["uid"]), request)


def find_uid(body: bytes) -> str:
    """The first uid in a body that may not be JSON. API servers send the uid of the request first."""
    found = _UID.search(body[:4096])
    return found.group(1).decode(errors="replace") if found else ""


@dataclass(slots=True)
class AdmissionResponse:
    """The response to a review."""

    allowed: bool
    code: int = 200
    reason: str = ""
    message: str = ""
    causes: Sequence[Mapping[str, Any]] = ()
    patch: Sequence[Operation] = ()
    warnings: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def encode(self, version: str, uid: str) -> bytes:
        """Encodes the review with the response."""
        response: dict[str, Any] = {"uid": uid, "allowed": self.allowed, "status": self._status()}
        if self.patch:
            response["patch"] = base64.b64encode(msgspec.json.encode(self.patch)).decode()
            response["patchType"] = "JSONPatch"
        if self.warnings:
            response["warnings"] = list(_within_limit(self.warnings))
        return msgspec.json.encode(
            {"apiVersion": f"{GROUP}/{version}", "kind": "AdmissionReview", "response": response}
        )

    def _status(self) -> dict[str, Any]:
        if self.allowed:
            return {"code": 200}
        details = dict(self.details) | ({"causes": list(self.causes)} if self.causes else {})
        status: dict[str, Any] = {
            "status": "Failure",
            "code": self.code,
            "reason": self.reason or _REASONS.get(self.code, ""),
            "message": self.message,
        }
        return status | ({"details": details} if details else {})


def _within_limit(warnings: Sequence[str]) -> Iterator[str]:
    """The warnings within the limit; if there are more, the last one contains their number."""
    remaining = WARNINGS_LENGTH
    for number, text in enumerate(warnings):
        if len(text) > remaining:
            yield f"… and {len(warnings) - number} more warnings"
            return
        yield text
        remaining -= len(text)


def denial(problems: Sequence[Problem], *, subject: str, warnings: Sequence[str] = ()) -> AdmissionResponse:
    """The response for problems: 422 with a cause for each field, or 403 if no problem names a field."""
    message = "; ".join(map(str, problems))
    causes = [
        {"reason": "FieldValueInvalid", "field": problem.field, "message": problem.message}
        for problem in problems
        if problem.field
    ]
    if not causes:
        return AdmissionResponse(allowed=False, code=403, message=message, warnings=warnings)
    message = f"{subject} is invalid: {message}"
    return AdmissionResponse(allowed=False, code=422, message=message, causes=causes, warnings=warnings)


def denial_of_error(error: ApiError, *, warnings: Sequence[str] = ()) -> AdmissionResponse:
    """The response for an API error: its code, reason and details."""
    return AdmissionResponse(
        allowed=False,
        code=error.code,
        reason=error.reason,
        message=error.message,
        details=error.details,
        warnings=warnings,
    )
