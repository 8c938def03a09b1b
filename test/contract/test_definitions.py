"""Definitions that an operator applies at its start, and objects that move to the stored version: on both servers."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from kaito.runtime import Client, ObjectMeta
from kaito.runtime.client import (
    AppliedDefinition,
    DefinitionNotServed,
    MergePatch,
    Migration,
    apply_definitions,
    connect,
    migrate_stored_versions,
)
from kaito.runtime.errors import Invalid
from kaito.runtime.kinds import CustomResourceDefinition, untyped_kind
from test.contract.conftest import APPLY, MERGE, Server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with connect(server.kubeconfig, field_manager="operator") as client:
        yield client


@pytest.fixture
def group() -> str:
    return f"g{uuid.uuid4().hex[:8]}.example.com"


def definition(group: str, *versions: str, storage: str = "", description: str = "") -> dict[str, Any]:
    schema = {"type": "object", "description": description, "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"sites.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": "Site", "plural": "sites", "singular": "site", "listKind": "SiteList"},
            "scope": "Namespaced",
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": version == (storage or versions[0]),
                    "schema": {"openAPIV3Schema": schema},
                }
                for version in versions
            ],
        },
    }


async def outcomes(client: Client, *definitions: Mapping[str, Any]) -> list[str]:
    return [applied.outcome for applied in await apply_definitions(client, definitions)]


async def stored_versions(client: Client, group: str) -> list[str]:
    return (await client.get(CustomResourceDefinition, f"sites.{group}")).status.stored_versions


@pytest.mark.conformance("client-definitions")
async def test_definitions_are_served_when_they_have_been_applied(client: Client, group: str, server: Server) -> None:
    first = definition(group, "v1")
    assert await apply_definitions(client, [first]) == [AppliedDefinition(f"sites.{group}", "created")]
    site = untyped_kind(f"{group}/v1", "Site", plural="sites")
    await client.create(site(metadata=ObjectMeta(name="a", namespace=server.namespace)))
    assert await outcomes(client, first) == ["unchanged"]
    assert await outcomes(client, definition(group, "v1", description="more")) == ["changed"]


@pytest.mark.conformance("client-definitions")
async def test_an_old_replica_does_not_undo_a_newer_definition(client: Client, group: str) -> None:
    old, new = definition(group, "v1"), definition(group, "v2", "v1", storage="v1")
    assert await outcomes(client, old) == ["created"]
    assert await outcomes(client, new) == ["changed"]
    assert await outcomes(client, old) == ["kept"]
    present = await client.get(CustomResourceDefinition, f"sites.{group}")
    assert [version.name for version in present.spec.versions] == ["v2", "v1"]
    assert await outcomes(client, definition(group, "v2", "v1", "v1beta1", storage="v1")) == ["changed"]


@pytest.mark.conformance("client-definitions")
async def test_a_version_can_be_removed_after_the_migration(client: Client, group: str, server: Server) -> None:
    await outcomes(client, definition(group, "v1"))
    old = untyped_kind(f"{group}/v1", "Site", plural="sites")
    names = [f"site-{number:02}" for number in range(20)]
    for name in names:
        await client.create(old.model_validate({"metadata": {"name": name, "namespace": server.namespace}, "size": 3}))
    await outcomes(client, definition(group, "v2", "v1"))
    assert await stored_versions(client, group) == ["v1", "v2"]
    only_new = definition(group, "v2")
    with pytest.raises(Invalid, match="storedVersions"):
        await apply_definitions(client, [only_new])

    assert await migrate_stored_versions(client, [only_new]) == Migration(len(names))
    assert await stored_versions(client, group) == ["v2"]
    assert await migrate_stored_versions(client, [only_new]) == Migration()
    assert await outcomes(client, only_new) == ["changed"]
    new = untyped_kind(f"{group}/v2", "Site", plural="sites")
    found = await client.list(new, namespace=server.namespace)
    assert [site.name for site in found] == names  # readable: none is stored as v1
    assert {site.to_dict()["size"] for site in found} == {3}


async def test_a_version_that_is_stored_and_not_served_yet(client: Client, group: str, server: Server) -> None:
    await outcomes(client, definition(group, "v1"))
    served = untyped_kind(f"{group}/v1", "Site", plural="sites")
    await client.create(served(metadata=ObjectMeta(name="a", namespace=server.namespace)))
    hidden = definition(group, "v2", "v1")
    hidden["spec"]["versions"][0]["served"] = False
    applied = await apply_definitions(client, [hidden], within=5)
    assert [each.outcome for each in applied] == ["changed"]
    assert await migrate_stored_versions(client, [hidden]) == Migration(1)
    assert await stored_versions(client, group) == ["v2"]


async def test_a_change_of_the_stored_version_during_the_migration_is_not_recorded(
    client: Client, group: str, server: Server
) -> None:
    await outcomes(client, definition(group, "v1"))
    old = untyped_kind(f"{group}/v1", "Site", plural="sites")
    await client.create(old(metadata=ObjectMeta(name="a", namespace=server.namespace)))
    await outcomes(client, definition(group, "v2", "v1"))
    changed = False

    async def interfere(request: Any, send: Any) -> Any:
        nonlocal changed
        if request.method == "PATCH" and "/sites/" in request.target and not changed:
            changed = True
            await client.apply(CustomResourceDefinition.model_validate(definition(group, "v2", "v1", storage="v1")))
        return await send(request)

    await migrate_stored_versions(client.intercepted(interfere), [definition(group, "v2")])
    assert changed
    assert set(await stored_versions(client, group)) == {"v1", "v2"}


async def test_a_definition_that_is_changed_by_others_meanwhile_is_recorded_after_all(
    client: Client, group: str
) -> None:
    await outcomes(client, definition(group, "v1"))
    await outcomes(client, definition(group, "v2", "v1"))
    conflicts = 0

    async def interfere(request: Any, send: Any) -> Any:
        nonlocal conflicts
        if request.method == "PATCH" and request.target.partition("?")[0].endswith("/status") and conflicts < 2:
            conflicts += 1
            present = await client.get(CustomResourceDefinition, f"sites.{group}")
            await client.patch(present, MergePatch({"metadata": {"labels": {"touched": str(conflicts)}}}))
        return await send(request)

    await migrate_stored_versions(client.intercepted(interfere), [definition(group, "v2")])
    assert (conflicts, await stored_versions(client, group)) == (2, ["v2"])


async def test_an_object_that_cannot_be_rewritten_keeps_the_old_version_listed(
    client: Client, group: str, server: Server
) -> None:
    await outcomes(client, definition(group, "v1"))
    old = untyped_kind(f"{group}/v1", "Site", plural="sites")
    for name in ("bad", "good"):
        await client.create(old(metadata=ObjectMeta(name=name, namespace=server.namespace)))
    await outcomes(client, definition(group, "v2", "v1"))

    async def refuse(request: Any, send: Any) -> Any:
        if request.method == "PATCH" and request.target.endswith("/sites/bad"):
            raise Invalid("spec is invalid", code=422)
        return await send(request)

    done = await migrate_stored_versions(client.intercepted(refuse), [definition(group, "v2")])
    assert done == Migration(1, (f"/apis/{group}/v2/namespaces/{server.namespace}/sites/bad",))
    assert await stored_versions(client, group) == ["v1", "v2"]
    assert await migrate_stored_versions(client, [definition(group, "v2")]) == Migration(2)
    assert await stored_versions(client, group) == ["v2"]


@pytest.mark.real
async def test_a_definition_whose_names_are_taken_is_an_error_with_the_reason(real: Server, group: str) -> None:
    """The in-memory server does not compare the names of definitions."""
    other = definition(group, "v1")
    other["metadata"]["name"] = f"pages.{group}"
    other["spec"]["names"] |= {"plural": "pages"}
    async with connect(real.kubeconfig, field_manager="operator") as client:
        await outcomes(client, definition(group, "v1"))
        with pytest.raises(
            DefinitionNotServed, match=rf"pages\.{group} is not served after 1 s: .*NamesAccepted=False"
        ):
            await apply_definitions(client, [other], within=1)


async def test_a_definition_that_is_being_removed_accepts_no_new_object(
    server: Server, client: Client, group: str
) -> None:
    await apply_definitions(client, [definition(group, "v1")])
    sites = f"/apis/{group}/v1/namespaces/{server.namespace}/sites"
    site = {"apiVersion": f"{group}/v1", "kind": "Site"}
    held = site | {"metadata": {"name": "held", "finalizers": ["example.com/hold"]}}
    assert (await server.call("POST", sites, held)).status == 201
    crd = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/sites.{group}"
    assert (await server.call("DELETE", crd)).status == 200
    new = site | {"metadata": {"name": "new"}}
    answer = await server.call("POST", sites, new)
    for _ in range(100):  # a real server notices it later
        if answer.status not in {201, 409}:
            break
        await asyncio.sleep(0.1)
        answer = await server.call("POST", sites, new)
    why = "create not allowed while custom resource definition is terminating"
    assert (answer.status, answer.body["message"]) == (403, f'sites.{group} "new" is forbidden: {why}')
    assert answer.body["details"] == {"name": "new", "group": group, "kind": "sites"}
    applied = site | {"metadata": {"name": "applied"}}
    answer = await server.call("PATCH", f"{sites}/applied", applied, APPLY, fieldManager="test", force="true")
    assert (answer.status, answer.body["message"]) == (403, f'sites.{group} "applied" is forbidden: {why}')
    await server.call("PATCH", f"{sites}/held", {"metadata": {"finalizers": None}}, MERGE)
