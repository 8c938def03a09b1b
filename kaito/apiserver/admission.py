"""Admission: webhooks that see every write before it is stored, and may change or refuse it.

Configured by the stored `MutatingWebhookConfiguration` and `ValidatingWebhookConfiguration` objects, as in a real
cluster. How a webhook is reached is a callable: over HTTPS by default (`webhook_client`), or in the same process for
tests, which is also the only way to reach one configured by a Service reference, since nothing routes cluster
addresses here.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from kaito.apiserver import errors
from kaito.apiserver.cel import RuleSyntaxError, compile_rule
from kaito.apiserver.cel_values import plain
from kaito.apiserver.core import Context, Core
from kaito.apiserver.kinds import Resource
from kaito.apiserver.patch import json_patch
from kaito.apiserver.routes import Target
from kaito.apiserver.selectors import selector_matches
from kaito.apiserver.wire import Json, Object, copy_json, decode, is_object

GROUP = "admissionregistration.k8s.io"
MUTATING = f"mutatingwebhookconfigurations.{GROUP}"
VALIDATING = f"validatingwebhookconfigurations.{GROUP}"

WebhookCaller: TypeAlias = Callable[[Object, Object], Awaitable[Object]]
"""Sends an AdmissionReview to where a `clientConfig` points and returns the answered review; raises `WebhookError`."""


class WebhookError(Exception):
    """A webhook could not be called, or did not answer with a review."""


class Admission:
    """The mutating and validating phases of one server."""

    def __init__(self, core: Core, caller: WebhookCaller) -> None:
        self._core = core
        self.caller = caller

    async def mutate(
        self, target: Target, operation: str, data: Object, old: Object | None, context: Context
    ) -> Object:
        """Return the object as the mutating webhooks leave it: the same object when none changed it."""
        for hook in self._matching(MUTATING, target, operation, data, old):
            answer = await self._ask(hook, target, operation, data, old, context)
            if answer is None or not answer.get("patch"):
                continue
            patched = json_patch(data, decode(base64.b64decode(answer["patch"])))
            if is_object(patched):
                data = patched
        return data

    async def validate(
        self, target: Target, operation: str, data: Object | None, old: Object | None, context: Context
    ) -> None:
        """Refuse the write when a validating webhook does."""
        for hook in self._matching(VALIDATING, target, operation, data, old):
            await self._ask(hook, target, operation, data, old, context)

    def _matching(
        self, storage: str, target: Target, operation: str, data: Object | None, old: Object | None
    ) -> list[Object]:
        if target.resource.group == GROUP:
            return []
        channel = self._core.store.channel(storage)
        found: list[Object] = []
        for key in sorted(channel.objects):
            hooks: list[Object] = channel.objects[key].data.get("webhooks") or []
            found += [hook for hook in hooks if self._matches(hook, target, operation, data, old)]
        return found

    def _matches(self, hook: Object, target: Target, operation: str, data: Object | None, old: Object | None) -> bool:
        rules: list[Object] = hook.get("rules") or []
        exact = hook.get("matchPolicy") == "Exact"
        if not any(rule_matches(rule, target.resource, target.subresource, operation, exact=exact) for rule in rules):
            return False
        if target.resource.namespaced and hook.get("namespaceSelector"):
            namespace = self._core.store.get("namespaces", ("", target.namespace))
            labels = None if namespace is None else namespace.metadata.get("labels")
            if not selector_matches(hook["namespaceSelector"], labels):
                return False
        selector: Object = hook.get("objectSelector") or {}
        if selector and not any(
            selector_matches(selector, state["metadata"].get("labels")) for state in (data, old) if state is not None
        ):
            return False
        return _conditions_hold(hook, data, old, operation)

    async def _ask(
        self,
        hook: Object,
        target: Target,
        operation: str,
        data: Object | None,
        old: Object | None,
        context: Context,
    ) -> Object | None:
        """Return a webhook's response; None when it could not be reached and does not insist."""
        uid = self._core.new_uid()
        review = _review(uid, target, operation, data, old, context)
        name = str(hook.get("name", ""))
        try:
            async with asyncio.timeout(float(hook.get("timeoutSeconds") or 10)):
                answer = await self.caller(hook.get("clientConfig") or {}, review)
            response: Json = answer.get("response")
            if not is_object(response):
                raise WebhookError("webhook response was absent")
            if response.get("uid") != uid:
                raise WebhookError(
                    f"expected response.uid {errors.quote(uid)}, got {errors.quote(str(response.get('uid')))}"
                )
        except (WebhookError, TimeoutError) as error:
            if hook.get("failurePolicy") == "Ignore":
                return None
            why = "context deadline exceeded" if isinstance(error, TimeoutError) else str(error)
            raise errors.internal(f"failed calling webhook {errors.quote(name)}: {why}") from error
        result: Object = response
        context.warnings.extend(str(text) for text in result.get("warnings") or ())
        if not result.get("allowed"):
            raise _denial(name, result.get("status") or {})
        return result


def rule_matches(rule: Object, resource: Resource, subresource: str, operation: str, *, exact: bool) -> bool:
    """Return whether a rule of a webhook covers a request.

    With `matchPolicy: Equivalent` any version of the resource will do: conversion strategy None keeps objects alike.
    """

    def has(field: str, value: str) -> bool:
        listed: list[str] = rule.get(field) or []
        return "*" in listed or value in listed

    if not has("operations", operation) or not has("apiGroups", resource.group):
        return False
    if exact and not has("apiVersions", resource.version):
        return False
    if rule.get("scope") not in {None, "*", "Namespaced" if resource.namespaced else "Cluster"}:
        return False
    wanted: list[str] = rule.get("resources") or []
    if subresource:
        names = {f"{resource.plural}/{subresource}", f"{resource.plural}/*", f"*/{subresource}", "*/*"}
    else:
        names = {resource.plural, "*", "*/*"}
    return any(name in names for name in wanted)


def _conditions_hold(hook: Object, data: Object | None, old: Object | None, operation: str) -> bool:
    conditions: list[Object] = hook.get("matchConditions") or []
    names: Object = {"object": plain(data), "oldObject": plain(old), "request": plain({"operation": operation})}
    for condition in conditions:
        try:
            if not compile_rule(str(condition["expression"])).evaluate(names):
                return False
        except RuleSyntaxError as error:
            raise errors.internal(f"match condition {condition.get('name')}: {error}") from error
    return True


def _review(
    uid: str, target: Target, operation: str, data: Object | None, old: Object | None, context: Context
) -> Object:
    resource = target.resource
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    where = {"group": resource.group, "version": resource.version, "resource": resource.plural}
    state = data if data is not None else old
    request: Object = {
        "uid": uid,
        "kind": kind,
        "resource": where,
        "requestKind": kind,
        "requestResource": where,
        "name": str(state["metadata"].get("name", "")) if state is not None else target.name,
        "operation": operation,
        "userInfo": {"username": context.user, "groups": list(context.groups)},
        "object": copy_json(data),
        "oldObject": copy_json(old),
        "dryRun": context.dry_run,
        "options": None,
    }
    if target.namespace:
        request["namespace"] = target.namespace
    if target.subresource:
        request["subResource"] = request["requestSubResource"] = target.subresource
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}


def _denial(name: str, status: Object) -> errors.StatusError:
    """Return the refusal of a webhook (`webhook/errors.ToStatusErr`)."""
    head = f"admission webhook {errors.quote(name)} denied the request"
    text = status.get("message") or status.get("reason")
    message = f"{head}: {text}" if text else f"{head} without explanation"
    code = max(int(status.get("code") or 0), 400)
    return errors.StatusError(code, str(status.get("reason") or ""), message, details=status.get("details"))
