"""Conflicts of server-side apply, tokens and scales: the same on both servers."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from kaito.runtime import Client, Conflict, NotFound, ObjectMeta
from kaito.runtime.client import (
    MergePatch,
    apply_and_report,
    apply_conflicts,
    connect,
    field_conflicts,
    read_scale,
    request_token,
)
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.kinds import ConfigMap, Deployment, Pod, ServiceAccount
from test.contract.conftest import Server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with connect(server.kubeconfig, field_manager="mine") as client:
        yield client.namespaced(server.namespace)


def colors(namespace: str, **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name="colors", namespace=namespace), data=data)


@pytest.mark.conformance("client-apply-conflicts")
async def test_an_unforced_conflict_names_each_field_and_its_manager(client: Client, server: Server) -> None:
    await client.apply(colors(server.namespace, sky="blue", grass="green"), field_manager='other "tool"')
    current = await client.get(ConfigMap, "colors")
    await client.managed_by("editor").patch(current, MergePatch({"data": {"sea": "gray"}}))
    with pytest.raises(Conflict) as refused:
        await client.apply(colors(server.namespace, sky="red", sea="red", grass="green"), force=False)
    found = sorted(field_conflicts(refused.value), key=lambda conflict: conflict.field)
    assert [str(conflict) for conflict in found] == [
        ".data.sea written by editor",
        '.data.sky applied by other "tool"',
    ]
    assert (await client.get(ConfigMap, "colors")).data["sky"] == "blue"


@pytest.mark.conformance("client-apply-conflicts")
async def test_a_forced_apply_reports_what_it_takes(client: Client, server: Server) -> None:
    first, taken = await apply_and_report(client, colors(server.namespace, sky="blue"))
    assert (first.data, taken) == ({"sky": "blue"}, ())
    wanted = colors(server.namespace, sky="red", sea="gray")
    other = client.managed_by("other")
    (conflict,) = await apply_conflicts(other, wanted)
    assert (conflict.field, conflict.manager, conflict.applied) == (".data.sky", "mine", True)
    assert (await client.get(ConfigMap, "colors")).data == {"sky": "blue"}
    applied, taken = await apply_and_report(other, wanted)
    assert (applied.data, list(taken)) == ({"sky": "red", "sea": "gray"}, [conflict])
    assert await apply_conflicts(other, wanted) == ()
    assert (await apply_and_report(other, wanted))[1] == ()


async def test_other_conflicts_have_no_fields(client: Client, server: Server) -> None:
    created = await client.create(colors(server.namespace, sky="blue"))
    with pytest.raises(Conflict) as refused:
        await client.apply(created.with_metadata(resource_version="1", managed_fields=None))
    assert field_conflicts(refused.value) == []


async def test_the_scale_of_an_object_is_read(client: Client, server: Server) -> None:
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "none"}]}}
    spec = {"replicas": 3, "selector": {"matchLabels": labels}, "template": template}
    metadata = {"name": "web", "namespace": server.namespace}
    web = await client.create(Deployment.model_validate({"metadata": metadata, "spec": spec}))
    found = await read_scale(client, web)
    assert (found.replicas, found.current, found.selector) == (3, 0, "app=web")
    await client.scale(web, 5)
    assert (await read_scale(client, web)).replicas == 5
    with pytest.raises(NotFound):
        await read_scale(client, web.with_metadata(name="absent"))


async def test_a_token_of_a_service_account(client: Client, server: Server) -> None:
    await client.create(ServiceAccount(metadata=ObjectMeta(name="robot", namespace=server.namespace)))
    token = await request_token(client, "robot", server.namespace, seconds=1200)
    assert token.token
    assert token.token not in repr(token)
    assert timedelta(seconds=600) < token.expires_at - datetime.now(UTC) < timedelta(seconds=1800)
    with pytest.raises(NotFound):
        await request_token(client, "absent", server.namespace)
    with pytest.raises(ConfigurationError, match="seconds=60 is less than 600"):
        await request_token(client, "robot", server.namespace, seconds=60)
    with pytest.raises(ConfigurationError, match="ConfigMap cannot bind a token"):
        await request_token(client, "robot", server.namespace, bound_to=colors(server.namespace))
    missing = Pod(metadata=ObjectMeta(name="absent", namespace=server.namespace, uid="x"))
    if server.name == "real":  # the in-memory server does not check it
        with pytest.raises(NotFound):
            await request_token(client, "robot", server.namespace, bound_to=missing)
