"""Serves the review APIs (TokenReview, SubjectAccessReview and the like), which are answered and never stored."""

from __future__ import annotations

from kaito.apiserver.auth.identity import ACCOUNT, groups_of
from kaito.apiserver.auth.rbac import Attributes, Authorizer, Decision
from kaito.apiserver.bodies import decode as bodies
from kaito.apiserver.patch.managed_fields import record_write
from kaito.apiserver.registry.routes import Target
from kaito.apiserver.registry.server_state import Context, ServerState
from kaito.apiserver.wire import HttpRequest, HttpResponse, Object, json_response, lookup


def review(
    state: ServerState, authorizer: Authorizer, target: Target, request: HttpRequest, context: Context
) -> HttpResponse:
    """Answers a review."""
    data = bodies.decode_object(request, target.resource, context)
    data.setdefault("metadata", {})
    record_write(state, target.resource, data, None, context, "")
    spec: Object = data.get("spec") or {}
    match target.resource.kind:
        case "TokenReview":
            data["status"] = _token_status(state, str(spec.get("token") or ""))
        case "SelfSubjectReview":
            data["status"] = {"userInfo": {"username": context.user, "groups": list(context.groups)}}
        case "SelfSubjectAccessReview":
            decision = authorizer.decide(_attributes(spec), context.user, context.groups, context.agent)
            data["status"] = _access_status(decision)
        case _:
            user, groups = str(spec.get("user") or ""), tuple(spec.get("groups") or ())
            data["status"] = _access_status(authorizer.decide(_attributes(spec), user, groups))
    return json_response(data, 201)


def _attributes(spec: Object) -> Attributes:
    plain: Object | None = spec.get("nonResourceAttributes")
    if plain is not None:
        return Attributes(str(plain.get("verb") or ""), path=str(plain.get("path") or ""))
    attributes: Object = spec.get("resourceAttributes") or {}
    fields = ("verb", "group", "resource", "subresource", "namespace", "name")
    return Attributes(**{field: str(attributes.get(field) or "") for field in fields})


def _access_status(decision: Decision) -> Object:
    status: Object = {"allowed": decision.allowed}
    return status | {"reason": decision.reason} if decision.reason else status


def _token_status(state: ServerState, token: str) -> Object:
    if token in state.tokens:
        return {"authenticated": True, "user": {"username": state.tokens[token]}}
    namespace, _, name = token.removeprefix(ACCOUNT).partition(":")
    if token.startswith(ACCOUNT):
        user: Object = {"username": token, "groups": list(groups_of(token))}
        account = state.store.get("serviceaccounts", (namespace, name))
        if account is not None:
            user["uid"] = lookup(account.data, ("metadata", "uid"))
        return {"authenticated": True, "user": user}
    return {"user": {}, "error": "invalid bearer token"}
