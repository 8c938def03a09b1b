"""Applies the CustomResourceDefinitions of an operator, and migrates their objects to the version that is stored.

    @asynccontextmanager
    async def lifespan(manager: Manager) -> AsyncGenerator[None]:
        await apply_definitions(manager.client, [definition()])  # before the caches start
        yield

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
from kaito.runtime.clock import monotonic
from kaito.runtime.errors import ApiError, Conflict, Gone, KaitoRuntimeError, NotFound
from kaito.runtime.kinds import CustomResourceDefinition
from kaito.runtime.logging import get_logger
from kaito.runtime.tasks import together

SERVED_SECONDS: Final = 30.0
"""Time limit for a new definition to be served."""

POLL_SECONDS: Final = 0.1
PAGE_SIZE: Final = 500
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


async def apply_definitions(
    client: Client, definitions: Sequence[Mapping[str, Any]], *, within: float = SERVED_SECONDS
) -> Sequence[AppliedDefinition]:
    """Apply definitions, and wait until their kinds are served.

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


async def migrate_stored_versions(client: Client, definitions: Sequence[Mapping[str, Any]]) -> int:
    """Rewrite the objects of kinds that may be stored in an old version, and remove it from `status.storedVersions`.

    An interrupted migration starts again at the next call. Conversion webhooks have to be served already. The role
    needs `list` and `patch` of the kinds, `get` of customresourcedefinitions, and `patch` of
    customresourcedefinitions/status.

    Args:
        client: Sends the requests.
        definitions: The kinds; what counts is the definition in the cluster.

    Returns:
        The number of objects that were rewritten.

    Raises:
        ApiError: An object cannot be rewritten, for example because it is invalid by now.
    """
    return sum([await _migrate(client, definition["metadata"]["name"]) for definition in definitions])


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
                await client.raw("GET", _collection(current), query={"limit": 1})
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
    """Return the sorting key of a version, newest first: v2, v1, v1beta2, v1alpha1, others."""
    match = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if match is None:
        return (3, 0, 0)
    stage = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return (stage, -int(match[1]), -int(match[3] or 0))


# -- migration -------------------------------------------------------------------------------------------------------


async def _migrate(client: Client, name: str) -> int:
    definition = await client.get(CustomResourceDefinition, name)
    storage = _storage_version(definition)
    if definition.status.stored_versions == [storage]:
        return 0
    _log.info("migrating objects to the stored version", definition=name, version=storage)
    path, count = _collection(definition), 0
    async for page in _pages(client, path):
        for start in range(0, len(page), PARALLEL):
            batch = page[start : start + PARALLEL]
            count += sum(await together(*(_rewrite(client, path, metadata) for metadata in batch)))
    await _record(client, name, storage)
    _log.info("objects migrated", definition=name, version=storage, objects=count)
    return count


async def _pages(client: Client, path: str) -> AsyncGenerator[Sequence[Mapping[str, Any]]]:
    """Yield the metadata of all objects; from the beginning again when the list expires, as rewriting is harmless."""
    token = ""
    while True:
        try:
            found = await client.raw("GET", path, query={"limit": PAGE_SIZE, "continue": token})
        except Gone:
            token = ""
            continue
        items: list[Mapping[str, Any]] = found.get("items") or []
        yield [item["metadata"] for item in items]
        metadata: Mapping[str, Any] = found.get("metadata") or {}
        token = str(metadata.get("continue") or "")
        if not token:
            return


async def _rewrite(client: Client, collection: str, metadata: Mapping[str, Any]) -> bool:
    """Store an object again without a change; the server writes it only if its stored form is another one."""
    base, _, plural = collection.rpartition("/")
    namespace = f"namespaces/{metadata['namespace']}/" if metadata.get("namespace") else ""
    try:
        await client.raw(
            "PATCH", f"{base}/{namespace}{plural}/{metadata['name']}", body={}, content_type=MergePatch.content_type
        )
    except NotFound:
        return False
    return True


async def _record(client: Client, name: str, storage: str) -> None:
    """Remove the other versions from the status, unless the stored version has changed meanwhile."""
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


def _collection(definition: CustomResourceDefinition) -> str:
    spec = definition.spec
    return f"/apis/{spec.group}/{_storage_version(definition)}/{spec.names.plural}"
