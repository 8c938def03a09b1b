"""Error responses of a Kubernetes API server, as one exception with a `Status`.

Every module of the server raises `StatusError`; `ApiServer.handle` turns it into the response. Reasons, messages and
causes are those of `k8s.io/apimachinery/pkg/api/errors`, word for word, because clients and users read them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kaito.apiserver.wire import Json, Object

_LABELS = {
    "FieldValueNotFound": "Not found",
    "FieldValueRequired": "Required value",
    "FieldValueDuplicate": "Duplicate value",
    "FieldValueInvalid": "Invalid value",
    "FieldValueTypeInvalid": "Invalid value",
    "FieldValueNotSupported": "Unsupported value",
    "FieldValueForbidden": "Forbidden",
    "FieldValueTooLong": "Too long",
    "FieldValueTooMany": "Too many",
    "InternalError": "Internal error",
}
OMITTED = object()
"""Value of an error whose message does not repeat it."""
_WITHOUT_VALUE = frozenset({"FieldValueRequired", "FieldValueForbidden", "FieldValueTooLong", "InternalError"})


def quote(value: str) -> str:
    """Returns a string as Go's `%q` prints it (for the characters that appear in manifests)."""
    return json.dumps(value, ensure_ascii=False)


def render_value(value: Json) -> str:
    """Returns a value as `field.Error` prints it inside a message."""
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class FieldError:
    """One cause of a 422: `field: Label: value: detail` (`field.Error` in apimachinery)."""

    reason: str
    field: str
    value: Json = None
    detail: str = ""

    @property
    def body(self) -> str:
        """The message without the field name, as it appears in `details.causes[].message`."""
        text = _LABELS[self.reason]
        if self.reason not in _WITHOUT_VALUE and self.value is not OMITTED:
            text += f": {render_value(self.value)}"
        return f"{text}: {self.detail}" if self.detail else text

    def __str__(self) -> str:
        return f"{self.field}: {self.body}"


def required(field: str, detail: str = "") -> FieldError:
    """Returns the error for a missing value."""
    return FieldError("FieldValueRequired", field, None, detail)


def invalid_value(field: str, value: Json, detail: str) -> FieldError:
    """Returns the error for a malformed value."""
    return FieldError("FieldValueInvalid", field, value, detail)


def type_invalid(field: str, value: Json, detail: str) -> FieldError:
    """Returns the error for a value of the wrong type."""
    return FieldError("FieldValueTypeInvalid", field, value, detail)


def unsupported(field: str, value: Json, allowed: Iterable[str]) -> FieldError:
    """Returns the error for a value outside an enumeration."""
    detail = "supported values: " + ", ".join(quote(item) for item in allowed)
    return FieldError("FieldValueNotSupported", field, value, detail)


def forbidden_field(field: str, detail: str) -> FieldError:
    """Returns the error for a well-formed value that may not be used here."""
    return FieldError("FieldValueForbidden", field, None, detail)


def duplicate(field: str, value: Json) -> FieldError:
    """Returns the error for a second item with the same key."""
    return FieldError("FieldValueDuplicate", field, value)


def too_many(field: str, count: int, limit: int) -> FieldError:
    """Returns the error for a list or map with more than `limit` entries."""
    return FieldError("FieldValueTooMany", field, count, f"must have at most {limit} item{'s' * (limit != 1)}")


class StatusError(Exception):
    """A request was refused; `status()` is the body that the client gets.

    Attributes:
        code: HTTP status.
        reason: machine-readable `metav1.StatusReason`.
        details: `metav1.StatusDetails` or None.
        retry_after: seconds for the `Retry-After` header, or None.
        continue_token: `metadata.continue` of the status (expired list tokens), or "".
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Object | None = None,
        retry_after: int | None = None,
        continue_token: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.retry_after = retry_after
        self.continue_token = continue_token

    def status(self) -> Object:
        """Returns the `metav1.Status` object of this refusal."""
        metadata: Object = {"continue": self.continue_token} if self.continue_token else {}
        body: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata,
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = self.details
        body["code"] = self.code
        return body


def qualified(group: str, resource: str) -> str:
    """Returns `resource.group`, or `resource` for the core group."""
    return f"{resource}.{group}" if group else resource


def _details(group: str, kind: str, name: str, causes: Sequence[Object] = (), uid: str = "") -> Object:
    details: Object = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    if kind:
        details["kind"] = kind
    if uid:
        details["uid"] = uid
    if causes:
        details["causes"] = list(causes)
    return details


def not_found(group: str, resource: str, name: str) -> StatusError:
    """Returns 404 for an object that does not exist."""
    message = f"{qualified(group, resource)} {quote(name)} not found"
    return StatusError(404, "NotFound", message, details=_details(group, resource, name))


def no_such_resource() -> StatusError:
    """Returns 404 for a resource type that is not served."""
    return StatusError(404, "NotFound", "the server could not find the requested resource", details={})


def already_exists(group: str, resource: str, name: str) -> StatusError:
    """Returns 409 for a create of an existing name."""
    message = f"{qualified(group, resource)} {quote(name)} already exists"
    return StatusError(409, "AlreadyExists", message, details=_details(group, resource, name))


def generate_name_conflict(group: str, resource: str, name: str) -> StatusError:
    """Returns 409 for a generated name that is taken."""
    taken = f"{qualified(group, resource)} {quote(name)} already exists"
    message = f"{taken}, the server was not able to generate a unique name for the object"
    return StatusError(409, "AlreadyExists", message, details=_details(group, resource, name), retry_after=1)


STALE_OBJECT = "the object has been modified; please apply your changes to the latest version and try again"


def conflict(group: str, resource: str, name: str, why: str = STALE_OBJECT) -> StatusError:
    """Returns 409 for a write against a state that is no longer current."""
    message = f"Operation cannot be fulfilled on {qualified(group, resource)} {quote(name)}: {why}"
    return StatusError(409, "Conflict", message, details=_details(group, resource, name))


def apply_conflict(causes: Sequence[Object], message: str) -> StatusError:
    """Returns 409 for an apply that would take fields from another manager."""
    return StatusError(409, "Conflict", message, details={"causes": list(causes)})


def invalid(group: str, kind: str, name: str, errors: Sequence[FieldError]) -> StatusError:
    """Returns 422 with one cause per field error (`NewInvalid`)."""
    unique = list(dict.fromkeys(str(error) for error in errors))
    text = unique[0] if len(unique) == 1 else "[" + ", ".join(unique) + "]"
    causes: list[Object] = [{"reason": error.reason, "message": error.body, "field": error.field} for error in errors]
    message = f"{qualified(group, kind)} {quote(name)} is invalid: {text}"
    return StatusError(422, "Invalid", message, details=_details(group, kind, name, causes))


def bad_request(message: str) -> StatusError:
    """Returns 400."""
    return StatusError(400, "BadRequest", message)


def forbidden(group: str, resource: str, name: str, why: str) -> StatusError:
    """Returns 403 for a request that policy does not allow."""
    subject = f"{qualified(group, resource)} {quote(name)} is " if name else f"{qualified(group, resource)} is "
    return StatusError(
        403, "Forbidden", f"{subject if resource else ''}forbidden: {why}", details=_details(group, resource, name)
    )


def method_not_allowed() -> StatusError:
    """Returns 405 for a verb that the resource does not have."""
    message = "the server does not allow this method on the requested resource"
    return StatusError(405, "MethodNotAllowed", message, details={})


def not_acceptable() -> StatusError:
    """Returns 406 for an Accept header that cannot be met."""
    message = "406: Not Acceptable\n\nAvailable representations: application/json, application/json;stream=watch"
    return StatusError(406, "NotAcceptable", message, details={})


def unsupported_media_type(accepted: str) -> StatusError:
    """Returns 415 for a body or patch of a type that the resource does not take."""
    message = "the body of the request was in an unknown format - accepted media types include: " + accepted
    return StatusError(415, "UnsupportedMediaType", message)


def expired(message: str, continue_token: str = "") -> StatusError:
    """Returns 410 for a resource version or continue token that history no longer covers."""
    return StatusError(410, "Expired", message, continue_token=continue_token)


def too_large_resource_version(requested: int, current: int) -> StatusError:
    """Returns the 504 for a resource version from the future, with the cause that client-go looks for."""
    details: Object = {
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    }
    message = f"Too large resource version: {requested}, current: {current}"
    return StatusError(504, "Timeout", f"Timeout: {message}", details=details, retry_after=1)


def internal(message: str) -> StatusError:
    """Returns 500."""
    return StatusError(
        500, "InternalError", f"Internal error occurred: {message}", details={"causes": [{"message": message}]}
    )
