"""Admission: webhooks and policies that inspect every write before it is stored and may change or reject it.

Configured by the stored `MutatingWebhookConfiguration` and `ValidatingWebhookConfiguration` objects, as in a real
cluster. A callable sends the reviews: over HTTPS by default (`webhook_client`), or within the process in tests. The
latter is the only way to call a webhook configured by a Service reference, because cluster addresses are not routed.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kaito.apiserver import errors
from kaito.apiserver.admission.matching import matches_object, rule_matches
from kaito.apiserver.admission.policies import AdmissionAttributes, Policies
from kaito.apiserver.cel.rules import RuleSyntaxError, compile_rule
from kaito.apiserver.cel.values import plain
from kaito.apiserver.patch.json_patch import json_patch
from kaito.apiserver.registry.resources import Resource, convert
from kaito.apiserver.registry.routes import Target
from kaito.apiserver.registry.server_state import Context, ServerState
from kaito.apiserver.webhook_client import WebhookCaller, WebhookError
from kaito.apiserver.wire import Json, Object, copy_json, decode, is_object

if TYPE_CHECKING:
    from kaito.apiserver.apiextensions.conversion import Conversions

GROUP = "admissionregistration.k8s.io"
MUTATING = f"mutatingwebhookconfigurations.{GROUP}"
VALIDATING = f"validatingwebhookconfigurations.{GROUP}"


@dataclass(frozen=True, slots=True)
class _Call:
    """A webhook to call, and the version of the kind that its rules name (`matchPolicy: Equivalent`)."""

    hook: Object
    resource: Resource


class Admission:
    """The mutating and validating phases of one server."""

    def __init__(self, state: ServerState, caller: WebhookCaller, conversions: Conversions) -> None:
        self._state = state
        self._conversions = conversions
        self._policies = Policies(state)
        self.caller = caller

    async def mutate(
        self, target: Target, operation: str, data: Object, old: Object | None, context: Context
    ) -> Object:
        """Returns the object after all mutating webhooks; the same object when none changed it."""
        for call in self._matching(MUTATING, target, operation, data, old):
            converted = await self._convert(call, data)
            old_converted = await self._convert(call, old)
            response = await self._call_webhook(call, target, operation, converted, old_converted, context)
            if response is None or not response.get("patch"):
                continue
            patched = json_patch(converted, decode(base64.b64decode(response["patch"])))
            if is_object(patched):
                back = _Call(call.hook, target.resource)
                data = copy_json(await self._convert(back, patched))
        return data

    async def _convert(self, call: _Call, data: Object | None) -> Object | None:
        """Converts an object to the version that a webhook's rules name."""
        if data is None or data["apiVersion"] == call.resource.api_version:
            return data
        if call.resource.converter is None:
            return convert(data, call.resource, call.resource.api_version)
        return (await self._conversions.convert(call.resource, [data], call.resource.api_version))[0]

    async def validate(
        self, target: Target, operation: str, data: Object | None, old: Object | None, context: Context
    ) -> None:
        """Raises the denial of a policy or a validating webhook."""
        if self._policies.has_bindings() and target.resource.group != GROUP:
            call = _Call({}, target.resource)
            review = _review(self._state.new_uid(), call, target, operation, data, old, context)
            self._policies.check(AdmissionAttributes(target, operation, data, old, review["request"]), context)
        for call in self._matching(VALIDATING, target, operation, data, old):
            converted, old_converted = await self._convert(call, data), await self._convert(call, old)
            await self._call_webhook(call, target, operation, converted, old_converted, context)

    def _matching(
        self, storage: str, target: Target, operation: str, data: Object | None, old: Object | None
    ) -> list[_Call]:
        if target.resource.group == GROUP:
            return []
        watch_cache = self._state.store.watch_cache(storage)
        found: list[_Call] = []
        for key in sorted(watch_cache.objects):
            hooks: list[Object] = watch_cache.objects[key].data.get("webhooks") or []
            for hook in hooks:
                resource = self._version(hook, target, operation)
                if resource is not None and self._matches(hook, target, operation, data, old):
                    found.append(_Call(hook, resource))
        return found

    def _version(self, hook: Object, target: Target, operation: str) -> Resource | None:
        """Returns the version of the resource that a rule of the webhook covers: the request's, or an equivalent
        one."""
        rules: list[Object] = hook.get("rules") or []
        candidates = [target.resource]
        if hook.get("matchPolicy") != "Exact":
            candidates += self._state.registry.versions(target.resource)
        for resource in candidates:
            if any(rule_matches(rule, resource, target.subresource, operation) for rule in rules):
                return resource
        return None

    def _matches(self, hook: Object, target: Target, operation: str, data: Object | None, old: Object | None) -> bool:
        return matches_object(self._state, hook, target, data, old) and _conditions_hold(hook, data, old, operation)

    async def _call_webhook(
        self,
        call: _Call,
        target: Target,
        operation: str,
        data: Object | None,
        old: Object | None,
        context: Context,
    ) -> Object | None:
        """Returns a webhook's response; None when it could not be reached and its failurePolicy is Ignore."""
        uid, hook = self._state.new_uid(), call.hook
        review = _review(uid, call, target, operation, data, old, context)
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
    uid: str, call: _Call, target: Target, operation: str, data: Object | None, old: Object | None, context: Context
) -> Object:
    kind, resource = _names(call.resource)
    request_kind, request_resource = _names(target.resource)
    state = data if data is not None else old
    request: Object = {
        "uid": uid,
        "kind": kind,
        "resource": resource,
        "requestKind": request_kind,
        "requestResource": request_resource,
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


def _names(resource: Resource) -> tuple[Object, Object]:
    shared = {"group": resource.group, "version": resource.version}
    return shared | {"kind": resource.kind}, shared | {"resource": resource.plural}


def _denial(name: str, status: Object) -> errors.StatusError:
    """Returns the error for a request that a webhook denied (`webhook/errors.ToStatusErr`)."""
    head = f"admission webhook {errors.quote(name)} denied the request"
    text = status.get("message") or status.get("reason")
    message = f"{head}: {text}" if text else f"{head} without explanation"
    code = max(int(status.get("code") or 0), 400)
    return errors.StatusError(code, str(status.get("reason") or ""), message, details=status.get("details"))
