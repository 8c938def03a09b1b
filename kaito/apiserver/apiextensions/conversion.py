"""Converts objects of a custom kind to the requested version by conversion webhooks.

Kinds with strategy `None` are not handled here: `resources.convert` changes their apiVersion and prunes. For the others
this module computes every view of a stored object before a synchronous module serves it, and converts every written
object to the storage version. The checks on an answer are those of `apiextensions-apiserver` (`webhook_converter.go`):
same number, kind and identity; of the metadata only labels and annotations may differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress

from kaito.apiserver import errors
from kaito.apiserver.registry.resources import Resource, has_view
from kaito.apiserver.registry.server_state import ServerState
from kaito.apiserver.registry.store import Stored, WatchCache
from kaito.apiserver.schema.structural import Schema, prune
from kaito.apiserver.webhook_client import WebhookCaller, WebhookError
from kaito.apiserver.wire import Object, copy_json, part

REVIEW = "apiextensions.k8s.io/v1"
TIMEOUT_SECONDS = 30.0
"""How long a conversion may take (`webhook_converter.go`, the REST client's default)."""

_IDENTITY = ("name", "namespace", "uid")
_MAY_DIFFER = ("labels", "annotations")


class Conversions:
    """Converts for one server."""

    def __init__(self, state: ServerState, caller: WebhookCaller) -> None:
        self._state = state
        self._caller = caller

    async def prepare(self, resource: Resource, stored: Iterable[Stored | None]) -> None:
        """Computes the views of these objects in the version of `resource`; does not wait when all exist.

        Raises:
            StatusError: 500, the webhook failed or answered nonsense.
        """
        if resource.converter is None:
            return
        missing = [each for each in stored if each is not None and not has_view(each, resource)]
        if missing:
            views = await self.convert(resource, [each.data for each in missing], resource.api_version)
            for each, shown in zip(missing, views, strict=True):
                each.views[resource.api_version] = shown

    async def prepare_all(self, resource: Resource, watch_cache: WatchCache, *, history: bool) -> None:
        """Computes the views of all objects of a kind, and of their past states where `history` is set.

        Raises:
            StatusError: 500, the webhook failed or answered nonsense.
        """
        while missing := [each for each in _states(watch_cache, history=history) if not has_view(each, resource)]:
            await self.prepare(resource, missing)  # meanwhile others may be written

    async def prepare_possible(self, resource: Resource, states: Iterable[Stored | None]) -> None:
        """Computes the views that can be converted: a watch ends at the first object that cannot be converted, not
        before."""
        each = list(states)
        try:
            await self.prepare(resource, each)
        except errors.StatusError:
            for version in each:
                with suppress(errors.StatusError):
                    await self.prepare(resource, [version])

    async def prepare_watch(self, resource: Resource, watch_cache: WatchCache) -> None:
        """Computes the views of everything that a new watch may send first, as far as they can be converted."""
        tried: set[int] = set()
        while missing := [
            each
            for each in _states(watch_cache, history=True)
            if id(each) not in tried and not has_view(each, resource)
        ]:
            tried |= {id(each) for each in missing}  # meanwhile others may be written
            await self.prepare_possible(resource, missing)

    async def to_storage(self, resource: Resource, data: Object) -> Object:
        """Returns a written object in the stored version."""
        return (await self.convert(resource, [data], resource.stored_api_version))[0]

    async def convert(self, resource: Resource, objects: Sequence[Object], api_version: str) -> list[Object]:
        """Returns objects of a type in one of its versions.

        Raises:
            StatusError: 500, the webhook failed or answered nonsense.
        """
        others = [data for data in objects if data["apiVersion"] != api_version]
        converted = iter(await self._call_webhook(resource, others, api_version) if others else ())
        return [data if data["apiVersion"] == api_version else next(converted) for data in objects]

    async def _call_webhook(self, resource: Resource, objects: Sequence[Object], api_version: str) -> list[Object]:
        uid = self._state.new_uid()
        request: Object = {"uid": uid, "desiredAPIVersion": api_version, "objects": copy_json(list(objects))}
        review: Object = {"apiVersion": REVIEW, "kind": "ConversionReview", "request": request}
        what = f"conversion webhook for {objects[0]['apiVersion']}, Kind={resource.kind}"
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                answer = await self._caller(resource.converter or {}, review)
        except (WebhookError, TimeoutError) as error:
            why = "context deadline exceeded" if isinstance(error, TimeoutError) else str(error)
            raise _failure(f"{what} failed: {why}") from error
        response: Object = answer.get("response") or {}
        if response.get("uid") != uid:
            raise _failure(f"{what} failed: expected response.uid={uid}, got {response.get('uid')}")
        result: Object = response.get("result") or {}
        if result.get("status") != "Success":
            raise _failure(f"{what} failed: {result.get('message') or 'no message was given'}")
        converted: list[Object] = response.get("convertedObjects") or []
        if len(converted) != len(objects):
            raise _failure(f"{what} returned {len(converted)} objects, expected {len(objects)}")
        schema = self._schema(resource, api_version)
        return [
            _checked(what, place, given, made, api_version, schema)
            for place, (given, made) in enumerate(zip(objects, converted, strict=True))
        ]

    def _schema(self, resource: Resource, api_version: str) -> Schema | None:
        if api_version == resource.stored_api_version:
            return resource.storage_schema
        group, _, version = api_version.rpartition("/")
        served = self._state.registry.find(group, version, resource.plural)
        return served.schema if served is not None else None


def _states(watch_cache: WatchCache, *, history: bool) -> list[Stored]:
    states = list(watch_cache.objects.values())
    if history:
        for change in watch_cache.history:
            states += [state for state in (change.stored, change.previous) if state is not None]
    return states


def _checked(what: str, place: int, given: Object, made: Object, api_version: str, schema: Schema | None) -> Object:
    problem = ""
    if made.get("apiVersion") != api_version:
        problem = f"must have apiVersion {api_version}, got {made.get('apiVersion')}"
    elif made.get("kind") != given["kind"]:
        problem = f"must have kind {given['kind']}, got {made.get('kind')}"
    old, new = part(given, "metadata"), part(made, "metadata")
    for field in _IDENTITY:
        if not problem and new.get(field) != old.get(field):
            problem = f"must have the same {field}: {new.get(field)} != {old.get(field)}"
    if problem:
        raise _failure(f"{what} returned invalid converted object at index {place}: {problem}")
    metadata = {name: value for name, value in old.items() if name not in _MAY_DIFFER}
    metadata |= {name: new[name] for name in _MAY_DIFFER if new.get(name)}
    result: Object = copy_json({**made, "metadata": metadata})
    if schema is not None:
        prune(result, schema)
    return result


def _failure(message: str) -> errors.StatusError:
    return errors.StatusError(500, "", message)
