"""Handles admission requests: decodes the object, calls the user's functions and builds the response.

HTTP and TLS are in `server`, the wire format in `review`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from inspect import isawaitable
from typing import Any, TypeVar, cast

import msgspec

from kaito.runtime.client import codec
from kaito.runtime.client.patch import is_object
from kaito.runtime.errors import ApiError, UnreadableObject
from kaito.runtime.lifespan import StateProvider, no_state
from kaito.runtime.meta import Resource
from kaito.runtime.webhook.declaration import Admission, AnyWebhook, Operation
from kaito.runtime.webhook.patching import json_patch
from kaito.runtime.webhook.review import AdmissionResponse, AdmissionReview, denial, denial_of_error

R = TypeVar("R", bound=Resource)

AdmissionHandler = Callable[[AdmissionReview], Awaitable[AdmissionResponse]]

_OPERATIONS: tuple[Operation, ...] = ("CREATE", "UPDATE", "DELETE", "CONNECT")


def defaulting_handler(webhook: AnyWebhook, state: StateProvider = no_state) -> AdmissionHandler:
    """The handler of the mutating path. `state` returns that of the manager's lifespan."""

    async def handle(review: AdmissionReview) -> AdmissionResponse:
        operation = review.request.get("operation")
        if operation not in _OPERATIONS or operation == "DELETE":
            return AdmissionResponse(allowed=True)
        finalizer = webhook.finalizer if operation == "CREATE" else ""
        only_finalizer = _finalizer_patch(review.request.get("object"), finalizer)
        trace: Mapping[str, str] = review.trace if operation == "CREATE" else {}
        if not webhook.defaults and webhook.mutate is None and not trace:
            return AdmissionResponse(allowed=True, patch=only_finalizer)
        try:
            admission = _admission(
                webhook.kind, operation, review.request, state(), with_old=webhook.mutate is not None
            )
        except UnreadableObject as error:
            if not webhook.defaults:  # an object that does not fit the model gets the finalizer, too
                return AdmissionResponse(allowed=True, patch=only_finalizer)
            return AdmissionResponse(allowed=False, code=400, message=str(error))
        given = admission.object
        if given is None:
            return AdmissionResponse(allowed=True)
        obj: Resource = given
        try:
            for default in webhook.defaults:
                result = default(obj)
                obj = await result if isawaitable(result) else cast("Resource", result)
            if webhook.mutate is not None:
                result = webhook.mutate(replace(admission, object=obj))
                obj = await result if isawaitable(result) else cast("Resource", result)
        except ApiError as error:
            return denial_of_error(error)
        if finalizer and finalizer not in obj.metadata.finalizers:
            obj = obj.with_metadata(finalizers=[*obj.metadata.finalizers, finalizer])
        if trace and not trace.keys() <= obj.metadata.annotations.keys():
            obj = obj.with_metadata(annotations={**trace, **obj.metadata.annotations})
        # Both sides of the comparison are encoded by the model. The patch therefore contains only what the functions
        # changed; unknown fields, nulls and other encodings of the request stay as they are.
        return AdmissionResponse(allowed=True, patch=json_patch(given.to_dict(), obj.to_dict()))

    return handle


def _finalizer_patch(document: object, finalizer: str) -> list[dict[str, Any]]:
    """The operations that add the finalizer to an object of a request; empty if it has it, or without a finalizer."""
    metadata: object = document.get("metadata") if is_object(document) else None
    if not finalizer or not is_object(metadata):
        return []
    present: object = metadata.get("finalizers")
    if not present:
        return [{"op": "add", "path": "/metadata/finalizers", "value": [finalizer]}]
    if finalizer in cast("list[object]", present):
        return []
    return [{"op": "add", "path": "/metadata/finalizers/-", "value": finalizer}]


def validating_handler(webhook: AnyWebhook, state: StateProvider = no_state) -> AdmissionHandler:
    """The handler of the validating path. `state` returns that of the manager's lifespan."""

    async def handle(review: AdmissionReview) -> AdmissionResponse:
        request = review.request
        operation = request.get("operation")
        if operation not in _OPERATIONS:
            return AdmissionResponse(allowed=False, code=400, message=f"unknown operation {operation!r}")
        if operation == "CONNECT" or webhook.validate is None:
            return AdmissionResponse(allowed=True)
        try:
            admission = _admission(webhook.kind, operation, request, state())
        except UnreadableObject as error:
            return AdmissionResponse(allowed=False, code=400, message=str(error))
        try:
            result = webhook.validate(admission)
            if isawaitable(result):
                await result
        except ApiError as error:
            return denial_of_error(error, warnings=admission.warnings)
        if admission.problems:
            subject = f'{webhook.kind.kind} "{_name(admission, request)}"'
            return denial(admission.problems, subject=subject, warnings=admission.warnings)
        return AdmissionResponse(allowed=True, warnings=admission.warnings)

    return handle


def _admission(
    kind: type[R], operation: Operation, request: Mapping[str, Any], state: object, *, with_old: bool = True
) -> Admission[R]:
    user: Mapping[str, Any] = request.get("userInfo") or {}
    return Admission(
        operation=operation,
        object=_decode(kind, request.get("object")),
        old=_decode(kind, request.get("oldObject")) if with_old else None,
        user=str(user.get("username", "")),
        groups=tuple(user.get("groups") or ()),
        dry_run=bool(request.get("dryRun")),
        subresource=str(request.get("subResource") or request.get("subresource") or ""),
        lifespan_state=state,
    )


def _decode(kind: type[R], document: object) -> R | None:
    return None if document is None else codec.decode(kind, msgspec.json.encode(document))


def _name(admission: Admission[Any], request: Mapping[str, Any]) -> str:
    obj: Resource | None = admission.object or admission.old
    return (obj.name if obj is not None else "") or str(request.get("name") or "")
