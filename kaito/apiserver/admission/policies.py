"""Evaluates ValidatingAdmissionPolicies: CEL expressions over a request, after mutation and before the validating
webhooks.

The semantics are those of `k8s.io/apiserver` (`admission/plugin/policy/validating`): match constraints of policy and
binding, match conditions, variables, parameters, messages, and the actions Deny and Warn. Expressions have no
`authorizer`, audit annotations are dropped, expressions are not type-checked when a policy is stored, and objects are
shown in the version of the request.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from celpy import celtypes
from celpy.evaluation import CELEvalError

from kaito.apiserver import errors
from kaito.apiserver.admission.matching import matches_object, rule_matches
from kaito.apiserver.cel.rules import RuleSyntaxError, compile_rule, evaluation_reason
from kaito.apiserver.cel.values import plain
from kaito.apiserver.registry.resources import group_of, version_of
from kaito.apiserver.registry.routes import Target
from kaito.apiserver.registry.selectors import selector_matches
from kaito.apiserver.registry.server_state import Context, ServerState
from kaito.apiserver.wire import Json, Object, part

GROUP = "admissionregistration.k8s.io"
POLICIES = f"validatingadmissionpolicies.{GROUP}"
BINDINGS = f"validatingadmissionpolicybindings.{GROUP}"

_CODES = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413}
"""HTTP status of a reason; any other is 422 (`validating/policy_decision.go`)."""


@dataclass(frozen=True, slots=True)
class AdmissionAttributes:
    """The attributes of a request that policies evaluate."""

    target: Target
    operation: str
    data: Object | None
    old: Object | None
    request: Object
    """The `request` of an AdmissionReview."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One validation that does not hold."""

    message: str
    reason: str = ""


class Policies:
    """The policies of one server."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def has_bindings(self) -> bool:
        """Returns whether a binding exists: most servers have none, and skip the evaluation."""
        return bool(self._state.store.watch_cache(BINDINGS).objects)

    def check(self, attributes: AdmissionAttributes, context: Context) -> None:
        """Raises 403 or the policy's status when a policy denies the request; collects the warnings of policies that
        warn."""
        denied: errors.StatusError | None = None
        for (_, name), binding in sorted(
            self._state.store.watch_cache(BINDINGS).objects.items(), key=lambda item: item[0]
        ):
            spec = part(binding.data, "spec")
            policy_name = str(spec.get("policyName"))
            policy = self._state.store.get(POLICIES, ("", policy_name))
            if policy is None or not self._applies(part(policy.data, "spec"), spec, attributes):
                continue
            actions: list[str] = spec.get("validationActions") or []
            for failure in self._failures(part(policy.data, "spec"), spec, attributes):
                policy_binding = f"ValidatingAdmissionPolicy '{policy_name}' with binding '{name}'"
                if "Warn" in actions:
                    context.warnings.append(f"Validation failed for {policy_binding}: {failure.message}")
                if "Deny" in actions and denied is None:
                    denied = _denial(f"{policy_binding} denied request: {failure.message}", failure.reason, attributes)
        if denied is not None:
            raise denied

    def _applies(self, policy: Object, binding: Object, attributes: AdmissionAttributes) -> bool:
        constraints, narrowed = part(policy, "matchConstraints"), part(binding, "matchResources")
        return self._matches(constraints, attributes, needs_rule=True) and self._matches(
            narrowed, attributes, needs_rule=False
        )

    def _matches(self, match: Object, attributes: AdmissionAttributes, *, needs_rule: bool) -> bool:
        exact = match.get("matchPolicy") == "Exact"
        if any(self._covers(rule, attributes, exact=exact) for rule in match.get("excludeResourceRules") or ()):
            return False
        rules: list[Object] = match.get("resourceRules") or []
        if (rules or needs_rule) and not any(self._covers(rule, attributes, exact=exact) for rule in rules):
            return False
        return matches_object(self._state, match, attributes.target, attributes.data, attributes.old)

    def _covers(self, rule: Object, attributes: AdmissionAttributes, *, exact: bool) -> bool:
        resource = attributes.target.resource
        names: list[str] = rule.get("resourceNames") or []
        if names and _name(attributes) not in names:
            return False
        versions = [resource] if exact else [resource, *self._state.registry.versions(resource)]
        return any(rule_matches(rule, each, attributes.target.subresource, attributes.operation) for each in versions)

    def _failures(self, policy: Object, binding: Object, attributes: AdmissionAttributes) -> Iterator[Failure]:
        fails_closed = policy.get("failurePolicy") != "Ignore"
        try:
            parameters = self._parameters(policy, binding, attributes)
        except LookupError as error:
            if fails_closed:
                yield Failure(str(error))
            return
        for params in parameters:
            activation = self._activation(attributes, params)
            try:
                if not _conditions_hold(policy, activation):
                    continue
            except (CELEvalError, RuleSyntaxError) as error:
                if fails_closed:
                    yield Failure(_error_message(error))
                continue
            yield from _failed_validations(policy, activation, fails_closed=fails_closed)

    def _parameters(self, policy: Object, binding: Object, attributes: AdmissionAttributes) -> list[Object | None]:
        kind, ref = part(policy, "paramKind"), part(binding, "paramRef")
        if not kind or not ref:
            return [None]
        version = str(kind.get("apiVersion"))
        resource = self._state.registry.find_kind(group_of(version), version_of(version), str(kind.get("kind")))
        if resource is None:
            message = f"failed to configure policy: failed to find resource referenced by paramKind: '{version}'"
            raise LookupError(message)
        namespace = str(ref.get("namespace") or attributes.target.namespace) if resource.namespaced else ""
        found: list[Object | None] = [
            stored.data
            for key, stored in sorted(
                self._state.store.watch_cache(resource.storage).objects.items(), key=lambda item: item[0]
            )
            if key[0] == namespace
            and ref.get("name") in {None, "", key[1]}
            and (not ref.get("selector") or selector_matches(ref["selector"], stored.metadata.get("labels")))
        ]
        if not found and ref.get("parameterNotFoundAction") == "Deny":
            message = (
                "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
            )
            raise LookupError(message)
        return found

    def _activation(self, attributes: AdmissionAttributes, params: Object | None) -> Object:
        namespace = self._state.store.get("namespaces", ("", attributes.target.namespace))
        return {
            "object": plain(attributes.data),
            "oldObject": plain(attributes.old),
            "request": plain(attributes.request),
            "params": plain(params),
            "namespaceObject": plain(namespace.data if namespace is not None and attributes.target.namespace else None),
        }


def _conditions_hold(policy: Object, activation: Object) -> bool:
    """Whether all match conditions hold. The API server evaluates them without the namespace of the object."""
    conditions: list[Object] = policy.get("matchConditions") or []
    known = {**activation, "namespaceObject": None}
    return all(compile_rule(str(condition["expression"])).evaluate(known) for condition in conditions)


def _failed_validations(policy: Object, activation: Object, *, fails_closed: bool) -> Iterator[Failure]:
    variables: dict[str, Json] = {}
    for variable in policy.get("variables") or ():
        visible = {**activation, "variables": _as_map(variables)}
        try:
            variables[str(variable["name"])] = compile_rule(str(variable["expression"])).evaluate(visible)
        except (CELEvalError, RuleSyntaxError):
            continue  # an error only where it is used: variables are lazy
    activation = {**activation, "variables": _as_map(variables)}
    for validation in policy.get("validations") or ():
        expression = str(validation["expression"])
        try:
            if compile_rule(expression).evaluate(activation):
                continue
        except (CELEvalError, RuleSyntaxError) as error:
            if fails_closed:
                yield Failure(f"expression '{expression}' resulted in error: {_error_message(error)}")
            continue
        yield Failure(_message(validation, activation), str(validation.get("reason") or ""))


def _as_map(values: dict[str, Json]) -> Json:
    return celtypes.MapType({celtypes.StringType(name): value for name, value in values.items()})


def _message(validation: Object, activation: Object) -> str:
    computed = validation.get("messageExpression")
    if computed:
        try:
            text = str(compile_rule(str(computed)).evaluate(activation)).strip()
        except (CELEvalError, RuleSyntaxError):
            text = ""
        if text and "\n" not in text:
            return text
    return str(validation.get("message") or f"failed expression: {str(validation['expression']).strip()}").strip()


def _error_message(error: CELEvalError | RuleSyntaxError) -> str:
    return evaluation_reason(error) if isinstance(error, CELEvalError) else str(error)


def _denial(message: str, reason: str, attributes: AdmissionAttributes) -> errors.StatusError:
    resource = attributes.target.resource
    denial = errors.forbidden(resource.group, resource.plural, _name(attributes), message)
    denial.reason = reason or "Invalid"
    denial.code = _CODES.get(denial.reason, 422)
    denial.details = {**(denial.details or {}), "causes": [{"message": message}]}
    return denial


def _name(attributes: AdmissionAttributes) -> str:
    return attributes.target.name or str(part(attributes.data, "metadata").get("name", ""))
