"""Serves get and list, with pages, selectors and the semantics of resource versions.

Rules of `resourceVersion`, `resourceVersionMatch`, `limit` and `continue` are those of the Kubernetes API concepts
page. All pages of a list show the same state: the one at the list's resource version is rebuilt from history.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from kaito.apiserver import errors
from kaito.apiserver.printers.presentation import Presentation
from kaito.apiserver.reads.watch import parse_rv
from kaito.apiserver.registry.routes import Target
from kaito.apiserver.registry.selectors import selection
from kaito.apiserver.registry.server_state import ServerState
from kaito.apiserver.registry.store import Key, Stored, WatchCache
from kaito.apiserver.wire import HttpRequest, Object, decode, encode

_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


def find(state: ServerState, target: Target) -> Stored:
    """Returns the object that a request names; 404 when it does not exist."""
    resource = target.resource
    stored = state.store.get(resource.storage, (target.namespace, target.name))
    if stored is None:
        raise errors.not_found(resource.group, resource.plural, target.name)
    return stored


def get(state: ServerState, target: Target, request: HttpRequest, show: Presentation) -> bytes:
    """Returns the body of a get."""
    wanted = parse_rv(request.param("resourceVersion")) or 0
    if wanted > state.store.rv:
        raise errors.too_large_resource_version(wanted, state.store.rv)
    return show.one(target.resource, find(state, target))


@dataclass(slots=True)
class _Page:
    rv: int
    """State to show; 0 for the newest."""
    after: Key | None
    limit: int


def list_objects(state: ServerState, target: Target, request: HttpRequest, show: Presentation) -> bytes:
    """Returns the body of a list."""
    resource = target.resource
    watch_cache = state.store.watch_cache(resource.storage)
    chosen = selection(resource, target.namespace, request.param("labelSelector"), request.param("fieldSelector"))
    page = _page(state, watch_cache, request)
    objects = state_at(watch_cache, page.rv) if page.rv else watch_cache.objects
    keys = sorted(key for key in objects if page.after is None or key > page.after)
    items = [objects[key] for key in keys if chosen.everything or chosen.matches(objects[key].data)]
    shown = page.rv or state.store.rv
    metadata: Object = {"resourceVersion": str(shown)}
    if page.limit and len(items) > page.limit:
        rest = len(items) - page.limit
        items = items[: page.limit]
        metadata["continue"] = _token(shown, items[-1].key)
        if not chosen.labels and not chosen.fields:
            metadata["remainingItemCount"] = rest
    return show.many(resource, items, metadata)


def _page(state: ServerState, watch_cache: WatchCache, request: HttpRequest) -> _Page:
    limit_text, token = request.param("limit"), request.param("continue")
    if limit_text and not limit_text.isdigit():
        raise errors.bad_request(f'strconv.ParseInt: parsing "{limit_text}": invalid syntax')
    limit = int(limit_text or 0)
    rv = parse_rv(request.param("resourceVersion"), "invalid resource version: ")
    match = request.param("resourceVersionMatch")
    _check_match(request, rv, match, token)
    if token:
        return _continued(watch_cache, token, limit)
    if rv is None:
        return _Page(0, None, limit)
    if rv > state.store.rv:
        raise errors.too_large_resource_version(rv, state.store.rv)
    if rv == 0:
        return _Page(0, None, 0 if not match else limit)
    exact = match == "Exact" or (not match and limit > 0)
    if exact and rv < watch_cache.floor:
        raise errors.expired("The resourceVersion for the provided list is too old.")
    return _Page(rv if exact else 0, None, limit if exact else 0)


def _check_match(request: HttpRequest, rv: int | None, match: str, token: str) -> None:
    if request.param("sendInitialEvents"):
        raise _invalid("sendInitialEvents", "sendInitialEvents is forbidden for list")
    if not match:
        if token and rv:
            raise errors.bad_request("specifying resource version is not allowed when using continue")
        return
    if token:
        raise _invalid("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided")
    if rv is None:
        raise _invalid("resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided")
    if match not in {"Exact", "NotOlderThan"}:
        error = errors.unsupported("resourceVersionMatch", match, ["Exact", "NotOlderThan", ""])
        raise errors.invalid("meta.k8s.io", "ListOptions", "", [error])
    if match == "Exact" and rv == 0:
        raise _invalid("resourceVersionMatch", 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"')


def _invalid(field: str, why: str) -> errors.StatusError:
    return errors.invalid("meta.k8s.io", "ListOptions", "", [errors.forbidden_field(field, why)])


def state_at(watch_cache: WatchCache, rv: int) -> dict[Key, Stored]:
    """Returns the objects of a watch cache as they were at a resource version within its history."""
    state = dict(watch_cache.objects)
    for change in reversed(watch_cache.history):
        if change.rv <= rv:
            break
        if change.previous is None:
            state.pop(change.stored.key, None)
        else:
            state[change.stored.key] = change.previous
    return state


def _token(rv: int, last: Key) -> str:
    body = encode({"v": "meta.k8s.io/v1", "rv": rv, "start": list(last)})
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def _continued(watch_cache: WatchCache, token: str, limit: int) -> _Page:
    try:
        body: Object = decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, name = body["start"]
        rv = int(body["rv"])
    except (ValueError, binascii.Error, KeyError, TypeError) as error:
        raise errors.bad_request(f"invalid continue token: continue key is not valid: {error}") from error
    last = (str(namespace), str(name))
    if rv > 0 and rv < watch_cache.floor:
        raise errors.expired(_EXPIRED, _token(-1, last))
    return _Page(max(rv, 0), last, limit)
