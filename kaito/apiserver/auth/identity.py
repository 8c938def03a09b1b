"""Authenticates requests: bearer tokens, service account tokens, and impersonation.

The server calls `identify` first. When no tokens are configured, a request without one is an administrator's.
"""

from __future__ import annotations

from collections.abc import Iterator

from kaito.apiserver.auth.rbac import AUTHENTICATED, MASTERS, Attributes, Authorizer
from kaito.apiserver.registry.server_state import Context, ServerState
from kaito.apiserver.wire import HttpRequest

ACCOUNT = "system:serviceaccount:"


def identify(state: ServerState, request: HttpRequest) -> Context | None:
    """Returns the identity of a request, or None for a missing or wrong token where tokens are required."""
    product = request.headers.get("user-agent", "").partition("/")[0] or "unknown"
    context = Context(
        user="admin",
        groups=(MASTERS, AUTHENTICATED),
        manager=request.param("fieldManager") or product,
        warnings=[],
        dry_run=request.param("dryRun") == "All",
        field_validation=request.param("fieldValidation") or "Warn",
        agent=request.headers.get("user-agent", ""),
    )
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    if token in state.tokens:
        context.user, context.groups = state.tokens[token], (AUTHENTICATED,)
    elif token.startswith(ACCOUNT):
        namespace, _, name = token.removeprefix(ACCOUNT).partition(":")
        if state.store.get("serviceaccounts", (namespace, name)) is None:
            return None
        context.user, context.groups = token, groups_of(token)
    elif state.tokens:
        return None
    return context


def groups_of(user: str) -> tuple[str, ...]:
    """Returns the groups a user is in by its name."""
    if not user.startswith(ACCOUNT):
        return (AUTHENTICATED,)
    namespace = user.removeprefix(ACCOUNT).partition(":")[0]
    return ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)


def impersonate(request: HttpRequest, context: Context, authorizer: Authorizer) -> None:
    """Applies the `Impersonate-User` and `Impersonate-Group` headers; 403 without the permission."""
    user = request.headers.get("impersonate-user", "")
    if not user:
        return
    groups = tuple(filter(None, request.headers.get("impersonate-group", "").split(",")))
    for attributes in _impersonated(user, groups):
        authorizer.check(attributes, context)
    context.user = user
    context.groups = (*groups, *(() if AUTHENTICATED in groups else (AUTHENTICATED,))) if groups else groups_of(user)


def _impersonated(user: str, groups: tuple[str, ...]) -> Iterator[Attributes]:
    if user.startswith(ACCOUNT):
        namespace, _, name = user.removeprefix(ACCOUNT).partition(":")
        yield Attributes("impersonate", "", "serviceaccounts", "", namespace, name)
    else:
        yield Attributes("impersonate", "", "users", "", "", user)
    for group in groups:
        yield Attributes("impersonate", "", "groups", "", "", group)
