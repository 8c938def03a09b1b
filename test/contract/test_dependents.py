"""Dependents against both servers: field ownership decides what is pruned, and plans are dry runs."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from kaito.runtime.cache import Cached
from kaito.runtime.client import Client
from kaito.runtime.client.write_context import writing_as
from kaito.runtime.dependents import DEPENDENTS_LABEL, Child, Dependents, DependentsResult, Plan, Stage
from kaito.runtime.kinds import ConfigMap, Job, Secret, Service
from kaito.runtime.kinds.batch import JobSpec
from kaito.runtime.kinds.core import ServiceSpec
from kaito.runtime.manager import Manager
from kaito.runtime.meta import ObjectMeta, OwnerReference
from kaito.runtime.reconcile import Request
from test.contract.test_manager import Server, client_of, settings_for

SITE = Dependents("contract", ConfigMap, Service, Job, Secret)


class Owner:
    """An owner, and the reconciles of its controller."""

    def __init__(self, manager: Manager, client: Client, owner: Secret) -> None:
        self.client = client
        self.owner = owner
        self.request: Request[Secret] = Request(key=owner.key, object=owner, api=manager.api)

    async def apply(self, *stages: Stage) -> DependentsResult:
        with writing_as("sites"):
            return await SITE.apply(self.request, *stages)

    async def plan(self, *stages: Stage) -> Plan:
        with writing_as("sites"):
            return await SITE.plan(self.request, *stages)

    async def names(self, kind: type[ConfigMap] = ConfigMap) -> set[str]:
        found = await self.client.list(kind, namespace=self.owner.namespace)
        return {each.name for each in found if not each.name.startswith("kube-")}

    def reference(self) -> OwnerReference:
        return self.owner.owner_reference()


@asynccontextmanager
async def owned(server: Server) -> AsyncGenerator[Owner]:
    cache = [Cached(kind) for kind in SITE.kinds]
    async with client_of(server) as client, Manager(settings_for(server), cache=cache, name="op") as manager:
        owner = await client.create(Secret(metadata=ObjectMeta(name="owner", namespace=server.namespace)))
        yield Owner(manager, client, owner)


def config(name: str, text: str = "x") -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name), data={"text": text})


def service(port: int = 80) -> Service:
    spec = ServiceSpec.model_validate({"selector": {"app": "a"}, "ports": [{"port": port}]})
    return Service(metadata=ObjectMeta(name="web"), spec=spec)


def job() -> Job:
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "c:1"}]}
    return Job(metadata=ObjectMeta(name="job"), spec=JobSpec.model_validate({"template": {"spec": pod}}))


@pytest.mark.conformance("dependents-2")
@pytest.mark.conformance("dependents-3")
async def test_pruning_deletes_what_the_controller_applied_and_nothing_else(server: Server) -> None:
    async with owned(server) as site:
        await site.apply(config("keep"), [config("drop"), service(), job()])
        original = await site.client.get(ConfigMap, "drop", server.namespace)
        assert original.labels == {DEPENDENTS_LABEL: "contract"}
        metadata = ObjectMeta(
            namespace=server.namespace, labels=original.labels, owner_references=original.metadata.owner_references
        )
        copied = ConfigMap(metadata=metadata.evolve(name="copied"), data={"precious": "yes"})
        await site.client.create(copied)
        applied = ConfigMap(metadata=metadata.evolve(name="applied"), data={"precious": "yes"})
        await site.client.apply(applied, field_manager="kubectl")
        result = await site.apply(config("keep"))
        assert {f"{kind} {key.name}" for kind, key in result.pruned} == {"ConfigMap drop", "Service web", "Job job"}
        assert await site.names() == {"keep", "copied", "applied"}
        assert await site.client.find(Service, "web", server.namespace) is None
        assert (await site.apply(config("keep"))).pruned == []


@pytest.mark.conformance("dependents-3")
async def test_fields_that_others_own_on_a_dependent_do_not_protect_it(server: Server) -> None:
    async with owned(server) as site:
        await site.apply(config("a"))
        scaled = ConfigMap(metadata=ObjectMeta(name="a", namespace=server.namespace), data={"more": "1"})
        await site.client.apply(scaled, field_manager="someone")
        await site.apply(config("b"))
        assert await site.names() == {"b"}


@pytest.mark.conformance("dependents-3")
async def test_an_existing_object_is_adopted_only_if_wanted(server: Server) -> None:
    async with owned(server) as site:
        await site.client.create(ConfigMap(metadata=ObjectMeta(name="a", namespace=server.namespace), data={"o": "1"}))
        with pytest.raises(Exception, match="exists without a controller"):
            await site.apply(config("b"), config("a"))
        await site.apply(Child(config("a"), adopt=True))
        adopted = await site.client.get(ConfigMap, "a", server.namespace)
        assert adopted.data == {"o": "1", "text": "x"}
        assert [reference.uid for reference in adopted.metadata.owner_references] == [site.owner.uid]
        await site.apply()
        assert await site.names() == set()


@pytest.mark.conformance("dependents-7")
async def test_a_plan_is_a_dry_run_of_the_server(server: Server) -> None:
    async with owned(server) as site:
        await site.apply(config("a"), [config("b"), service(), job()])
        kinds = (ConfigMap, Service, Job)

        async def versions() -> set[str]:
            return {
                f"{kind.kind} {each.name} {each.metadata.resource_version}"
                for kind in kinds
                for each in await site.client.list(kind, namespace=server.namespace)
            }

        assert (await site.plan(config("a"), [config("b"), service(), job()])).is_empty
        before = await versions()
        invalid = ConfigMap(metadata=ObjectMeta(name="Not_A_Name"))
        plan = await site.plan(config("a", "y"), service(81), job(), config("c"), invalid)
        lines = str(plan).splitlines()
        assert lines[:2] == [f"~ ConfigMap {server.namespace}/a", "    data.text: x -> y"]
        assert lines[2] == f"~ Service {server.namespace}/web"
        assert "    spec.ports[0].port: 80 -> 81" in lines
        assert f"+ ConfigMap {server.namespace}/c" in lines
        assert any(line.startswith(f"! ConfigMap {server.namespace}/Not_A_Name: ") for line in lines)
        assert lines[-1] == f"- ConfigMap {server.namespace}/b"
        assert await versions() == before
