"""Applies the CustomResourceDefinitions of an operator, and migrates their objects to the version that is stored.

    async def lifespan(manager: Manager) -> AsyncGenerator[None]:
        await apply_definitions(manager.client, [definition()])  # before the caches start
        yield

    def add_migration(manager: Manager) -> None:
        async def migrate() -> None:
            await migrate_stored_versions(manager.client, [definition()])

        manager.add(Background("migrate-stored-versions", migrate, one_shot=True))  # on the leader, with webhooks

A version can be removed from a definition when no object is stored in it. The API server does not rewrite objects after
the stored version has changed; `status.storedVersions` lists all versions in which some may be stored.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from kaito.runtime.client.client import Client
from kaito.runtime.client.patch import MergePatch
from kaito.runtime.client.path import resource_path
from kaito.runtime.clock import monotonic
from kaito.runtime.errors import ApiError, Conflict, Gone, KaitoRuntimeError, NotFound, TransportError
from kaito.runtime.kinds import CustomResourceDefinition
from kaito.runtime.logging import get_logger
from kaito.runtime.tasks import together

SERVED_SECONDS: Final = 30.0
"""Time limit for a new definition to be served."""

POLL_SECONDS: Final = 0.1
PAGE_SIZE: Final = 500
RESTARTS: Final = 5
"""How often a list that expires begins again."""

PARALLEL: Final = 8
"""Objects that are rewritten at once."""

STATUS_ATTEMPTS: Final = 5

_log = get_logger(__name__)

Outcome = Literal["created", "changed", "unchanged", "kept"]


class DefinitionNotServed(KaitoRuntimeError):
    """A definition was applied and is not served in time; the message contains the conditions of the API server."""


@dataclass(frozen=True, slots=True)
class AppliedDefinition:
    """What `apply_definitions` did with one definition."""

    name: str
    outcome: Outcome
    """`kept`: the cluster has a newer version, which a newer operator has applied."""


@dataclass(frozen=True, slots=True)
class Migration:
    """What `migrate_stored_versions` did."""

    rewritten: int = 0
    """Objects that are stored in the stored version now."""
    failed: tuple[str, ...] = ()
    """Paths of objects that could not be rewritten; the log has the errors."""


async def apply_definitions(
    client: Client, definitions: Sequence[Mapping[str, Any]], *, within: float = SERVED_SECONDS
) -> Sequence[AppliedDefinition]:
    """Applies definitions, and waits until their kinds are served.

    A definition whose newest version is older than one in the cluster is not applied: during an update of the operator,
    an old replica that restarts does not undo the work of a new one. A CA bundle that the manager wrote stays.

    Args:
        client: Sends the requests; needs `get`, `create` and `patch` of customresourcedefinitions, and `list` of the
            kinds.
        definitions: Manifests, of `kaito.runtime.crd.crd`.
        within: Time limit in seconds until all are served.

    Raises:
        Invalid: The server rejects a definition, for example because it lacks a version that is in
            `status.storedVersions`.
        DefinitionNotServed: A kind is not served in time.
    """
    return await together(*(_apply(client, definition, within) for definition in definitions))


async def migrate_stored_versions(client: Client, definitions: Sequence[Mapping[str, Any]]) -> Migration:
    """Rewrites the objects of kinds that may be stored in an old version, and removes it from `status.storedVersions`.

    An interrupted migration starts again at the next call. An object that cannot be rewritten, for example because it
    is invalid by now, is logged and leaves the status of its kind as it is. Conversion webhooks have to be served
    already. The role needs `list` and `patch` of the kinds, `get` of customresourcedefinitions, and `patch` of
    customresourcedefinitions/status.

    Args:
        client: Sends the requests.
        definitions: The kinds; what counts is the definition in the cluster.

    Raises:
        ApiError: A definition or its objects cannot be read.
        TransportError: There was no response.
    """
    total = Migration()
    for definition in definitions:
        done = await _migrate(client, definition["metadata"]["name"])
        total = Migration(total.rewritten + done.rewritten, (*total.failed, *done.failed))
    return total


# -- applying --------------------------------------------------------------------------------------------------------


async def _apply(client: Client, definition: Mapping[str, Any], within: float) -> AppliedDefinition:
    wanted = CustomResourceDefinition.model_validate(definition)
    present = await client.find(CustomResourceDefinition, wanted.name)
    if present is not None and _newest(present) < _newest(wanted):
        newest = ", ".join(version.name for version in present.spec.versions)
        _log.warning("definition of a newer operator kept", definition=wanted.name, versions=newest)
        return AppliedDefinition(wanted.name, "kept")
    applied = await client.apply(wanted)
    await _wait_until_served(client, applied, within)
    if present is None:
        return AppliedDefinition(wanted.name, "created")
    is_same = applied.metadata.generation == present.metadata.generation
    return AppliedDefinition(wanted.name, "unchanged" if is_same else "changed")


async def _wait_until_served(client: Client, definition: CustomResourceDefinition, within: float) -> None:
    deadline = monotonic() + within
    while True:
        current = await client.get(CustomResourceDefinition, definition.name)
        try:
            if current.is_established:
                await client.raw("GET", _path(current), query={"limit": 1})
                return
        except NotFound:
            pass  # established, and not yet served
        except ApiError:
            return  # served: a missing permission, or a conversion webhook that is not up yet
        if monotonic() >= deadline:
            conditions = "; ".join(f"{each.type}={each.status}: {each.message}" for each in current.status.conditions)
            raise DefinitionNotServed(f"{definition.name} is not served after {within:g} s: {conditions}")
        await asyncio.sleep(POLL_SECONDS)


def _newest(definition: CustomResourceDefinition) -> tuple[int, int, int]:
    return min(_rank(version.name) for version in definition.spec.versions)


def _rank(version: str) -> tuple[int, int, int]:
    """Returns the sorting key of a version, newest first: v2, v1, v1beta2, v1alpha1, others."""
    match = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if match is None:
        return (3, 0, 0)
    stage = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return (stage, -int(match[1]), -int(match[3] or 0))


# -- migration -------------------------------------------------------------------------------------------------------


async def _migrate(client: Client, name: str) -> Migration:
    definition = await client.get(CustomResourceDefinition, name)
    storage = _storage_version(definition)
    if definition.status.stored_versions == [storage]:
        return Migration()
    _log.info("migrating objects to the stored version", definition=name, version=storage)
    count = 0
    failed: dict[str, None] = {}
    async for page in _pages(client, _path(definition)):
        paths = [_path(definition, metadata.get("namespace", ""), metadata["name"]) for metadata in page]
        for start in range(0, len(paths), PARALLEL):
            batch = paths[start : start + PARALLEL]
            errors = await together(*(_rewrite(client, path) for path in batch))
            for path, error in zip(batch, errors, strict=True):
                if error is not None:
                    _log.warning("object not migrated", path=path, error=str(error))
                    failed[path] = None
            count += errors.count(None)
    if not failed:
        await _record(client, name, storage)
    _log.info("objects migrated", definition=name, version=storage, objects=count, failed=len(failed))
    return Migration(count, tuple(failed))


async def _pages(client: Client, path: str) -> AsyncGenerator[Sequence[Mapping[str, Any]]]:
    """Yields the metadata of all objects; from the beginning again when the list expires, as rewriting is harmless."""
    token, restarts = "", 0
    while True:
        try:
            found = await client.raw("GET", path, query={"limit": PAGE_SIZE, "continue": token})
        except Gone:
            restarts += 1
            if restarts > RESTARTS:
                raise
            token = ""
            continue
        items: list[Mapping[str, Any]] = found.get("items") or []
        yield [item["metadata"] for item in items]
        metadata: Mapping[str, Any] = found.get("metadata") or {}
        token = str(metadata.get("continue") or "")
        if not token:
            return


async def _rewrite(client: Client, path: str) -> KaitoRuntimeError | None:
    """Stores an object again without a change, and returns the error; the server writes it only if its stored form is
    another one."""
    try:
        await client.raw("PATCH", path, body={}, content_type=MergePatch.content_type)
    except NotFound:
        return None  # deleted meanwhile
    except (ApiError, TransportError) as error:
        return error
    return None


async def _record(client: Client, name: str, storage: str) -> None:
    """Removes the other versions from the status, unless the stored version has changed meanwhile."""
    for attempt in range(1, STATUS_ATTEMPTS + 1):
        current = await client.get(CustomResourceDefinition, name)
        if _storage_version(current) != storage:
            return
        version = current.metadata.resource_version
        patch = MergePatch({"metadata": {"resourceVersion": version}, "status": {"storedVersions": [storage]}})
        try:
            await client.patch(current, patch, subresource="status")
        except Conflict:
            if attempt == STATUS_ATTEMPTS:
                raise
        else:
            return


def _storage_version(definition: CustomResourceDefinition) -> str:
    return next(version.name for version in definition.spec.versions if version.storage)


def _path(definition: CustomResourceDefinition, namespace: str = "", name: str = "") -> str:
    """Returns the path of the objects or of one object, in the stored version, or in another if that is not served."""
    spec = definition.spec
    served = [version for version in spec.versions if version.served]
    served.sort(key=lambda version: not version.storage)
    version = served[0].name if served else _storage_version(definition)
    return resource_path(f"{spec.group}/{version}", spec.names.plural, namespace=namespace, name=name)
