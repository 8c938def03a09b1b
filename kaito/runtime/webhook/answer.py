"""From a question to a verdict: decode, call the user's function, compare. Knows nothing of HTTP or TLS."""

from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from typing import Any, TypeVar, cast

import msgspec

from kaito.runtime.client import codec
from kaito.runtime.errors import ApiError, UnreadableObject
from kaito.runtime.meta import Resource
from kaito.runtime.webhook.declaration import Admission, AnyWebhook, Operation
from kaito.runtime.webhook.patching import json_patch
from kaito.runtime.webhook.review import Review, Verdict, from_error, refused

R = TypeVar("R", bound=Resource)

Answer = Callable[[Review], Awaitable[Verdict]]

_OPERATIONS: tuple[Operation, ...] = ("CREATE", "UPDATE", "DELETE", "CONNECT")


def defaulting(webhook: AnyWebhook) -> Answer:
    """The answer of the mutating path."""

    async def answer(review: Review) -> Verdict:
        if review.request.get("operation") == "DELETE":
            return Verdict(allowed=True)
        try:
            given = _decode(webhook.kind, review.request.get("object"))
        except UnreadableObject as error:
            return Verdict(allowed=False, code=400, message=str(error))
        if given is None:
            return Verdict(allowed=True)
        obj: Resource = given
        try:
            for default in webhook.defaults:
                result = default(obj)
                obj = await result if isawaitable(result) else cast("Resource", result)
        except ApiError as error:
            return from_error(error)
        # Both states went through the model, so only what the functions changed differs: unknown fields, nulls and
        # other spellings of the request stay as they are.
        return Verdict(allowed=True, patch=json_patch(given.to_dict(), obj.to_dict()))

    return answer


def validating(webhook: AnyWebhook) -> Answer:
    """The answer of the validating path."""

    async def answer(review: Review) -> Verdict:
        request = review.request
        operation = request.get("operation")
        if operation not in _OPERATIONS:
            return Verdict(allowed=False, code=400, message=f"unknown operation {operation!r}")
        if operation == "CONNECT" or webhook.validate is None:
            return Verdict(allowed=True)
        try:
            admission = _admission(webhook.kind, operation, request)
        except UnreadableObject as error:
            return Verdict(allowed=False, code=400, message=str(error))
        try:
            judged = webhook.validate(admission)
            if isawaitable(judged):
                await judged
        except ApiError as error:
            return from_error(error, warnings=admission.warnings)
        if admission.problems:
            what = f'{webhook.kind.kind} "{_name(admission, request)}"'
            return refused(admission.problems, what=what, warnings=admission.warnings)
        return Verdict(allowed=True, warnings=admission.warnings)

    return answer


def _admission(kind: type[R], operation: Operation, request: Mapping[str, Any]) -> Admission[R]:
    user: Mapping[str, Any] = request.get("userInfo") or {}
    return Admission(
        operation=operation,
        object=_decode(kind, request.get("object")),
        old=_decode(kind, request.get("oldObject")),
        user=str(user.get("username", "")),
        groups=tuple(user.get("groups") or ()),
        dry_run=bool(request.get("dryRun")),
        subresource=str(request.get("subResource") or request.get("subresource") or ""),
    )


def _decode(kind: type[R], document: object) -> R | None:
    return None if document is None else codec.decode(kind, msgspec.json.encode(document))


def _name(admission: Admission[Any], request: Mapping[str, Any]) -> str:
    obj: Resource | None = admission.object or admission.old
    return (obj.name if obj is not None else "") or str(request.get("name") or "")
