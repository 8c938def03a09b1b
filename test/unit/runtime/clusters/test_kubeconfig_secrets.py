"""Secrets that contain kubeconfigs: what is accepted, refused, reported and replaced."""

import asyncio
import json

import pytest

from kaito.runtime import Controller, Request
from kaito.runtime.client import Api, MergePatch
from kaito.runtime.client.status import ConditionUpdate
from kaito.runtime.clusters import ClusterSet, KubeconfigSecrets
from kaito.runtime.errors import CacheNotSynced, ConfigurationError
from kaito.runtime.kinds import ConfigMap, Event, Secret
from kaito.runtime.testing import World
from test.support.cluster_fleet import Fleet, kubeconfig, secret

EXEC = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/touch", "args": ["/tmp/owned"]}}


def set_of(fleet: Fleet, provider: KubeconfigSecrets | None = None) -> ClusterSet:
    return ClusterSet("members", provider=provider or KubeconfigSecrets("fleet"), connect=fleet.connect)


def events(world: World, name: str) -> list[tuple[str, str, str]]:
    found = [each for each in world.list(Event, namespace="fleet") if each.regarding.name == name]
    return [(each.type or "", each.reason or "", each.note or "") for each in found]


@pytest.mark.conformance("clusters-7")
async def test_a_refused_kubeconfig_is_an_event_on_its_secret_and_affects_no_other(world: World) -> None:
    fleet = Fleet(world, "east", "west")
    members = set_of(fleet)
    world.put(secret("east", kubeconfig("https://east.example:6443", user=EXEC)))
    world.put(secret("west"))
    async with world.manager(clusters=[members]):
        await world.settle()
        assert [each.name for each in members.list()] == ["west"]
        refused = "kubeconfig refused: user.exec: it would run a program"
        assert events(world, "east") == [("Warning", "KubeconfigRefused", refused)]
        assert events(world, "west") == [("Normal", "ClusterReady", "cluster west is connected")]

        world.put(secret("east"))
        await world.settle()
        assert [each.name for each in members.list()] == ["east", "west"]
        assert events(world, "east")[-1] == ("Normal", "ClusterReady", "cluster east is connected")


async def test_a_refused_change_keeps_the_last_connection(world: World) -> None:
    fleet = Fleet(world, "east")
    members = set_of(fleet)
    world.put(secret("east"))
    async with world.manager(clusters=[members]):
        await world.settle()
        member = members.get("east")
        world.put(secret("east", b"{"))
        await world.settle()
        assert members.get("east") is member
        assert not member.problem
        assert events(world, "east")[-1][2].endswith("; the last valid kubeconfig stays in use")


async def test_the_report_is_repeated_until_it_succeeds_and_contains_no_credentials(world: World) -> None:
    fleet = Fleet(world, "east")
    reports: list[tuple[str, str]] = []

    async def report(about: Secret, condition: ConditionUpdate, api: Api) -> None:
        assert about.data == {}
        assert "t1" not in json.dumps(about.to_dict())
        if not reports:
            reports.append(("failed", ""))
            raise ConnectionError
        reports.append((about.name, condition.reason))
        await api.patch(about, MergePatch({"metadata": {"annotations": {"connected": condition.status}}}))

    members = set_of(fleet, KubeconfigSecrets("fleet", report=report))
    applied = {"kubectl.kubernetes.io/last-applied-configuration": kubeconfig("https://east.example").decode()}
    world.put(secret("east").evolve(metadata=secret("east").metadata.evolve(annotations=applied)))
    async with world.manager(clusters=[members]):
        await world.settle()
        await world.advance(15)
        assert reports == [("failed", ""), ("east", "ClusterReady")]
        fleet.take_down("east")
        members.get("east").report_overdue(1)
        await world.advance(15)
        assert reports[-1] == ("east", "ClusterUnreachable")
        assert world.get(Secret, "east", "fleet").annotations["connected"] == "False"


async def test_a_secret_cannot_take_the_name_of_another_cluster(world: World) -> None:
    fleet = Fleet(world, "east", "west")
    members = set_of(fleet, KubeconfigSecrets("fleet", name=lambda each: each.labels.get("cluster", each.name)))
    members.add("own", fleet.worlds["east"].transport())
    world.put(secret("first", kubeconfig("https://east.example"), labels={"cluster": "east"}))
    async with world.manager(clusters=[members]):
        await world.settle()
        world.put(secret("second", kubeconfig("https://west.example"), labels={"cluster": "east"}))
        world.put(secret("third", kubeconfig("https://west.example"), labels={"cluster": "own"}))
        world.put(secret("fourth", kubeconfig("https://west.example"), labels={"cluster": "NotAName"}))
        await world.settle()
        assert "is taken by Secret fleet/first" in events(world, "second")[0][2]
        assert "is taken by one that the program added" in events(world, "third")[0][2]
        assert "lower case" in events(world, "fourth")[0][2]
        assert fleet.opened[-1].server is fleet.worlds["east"].server
        world.delete(Secret, "first", "fleet")
        await world.settle()  # the name is free
        assert fleet.opened[-1].server is fleet.worlds["west"].server
        assert members.get("east").problem == ""


async def test_labels_select_clusters_and_leaving_the_selector_removes_one(world: World) -> None:
    fleet = Fleet(world, "east")
    members = set_of(fleet)
    world.put(secret("east", labels={"region": "eu"}))
    async with world.manager(clusters=[members]):
        await world.settle()
        assert [each.name for each in members.list("region=eu")] == ["east"]
        world.put(secret("east", labels={"region": "us"}))
        await world.settle()
        assert members.list({"region": "eu"}) == []
        assert len(fleet.opened) == 1
        unlabeled = world.get(Secret, "east", "fleet")
        world.put(unlabeled.evolve(metadata=unlabeled.metadata.evolve(labels={})))
        await world.settle()
        assert members.list() == []


async def test_a_secret_with_a_finalizer_is_removed_when_its_deletion_begins(world: World) -> None:
    fleet = Fleet(world, "east")
    members = set_of(fleet)
    stored = secret("east")
    world.put(stored.evolve(metadata=stored.metadata.evolve(finalizers=["example.com/wait"])))
    async with world.manager(clusters=[members]):
        await world.settle()
        assert members.find("east") is not None
        world.delete(Secret, "east", "fleet")
        await world.settle()
        assert world.find(Secret, "east", "fleet") is not None
        assert members.find("east") is None
        assert fleet.unclosed == []


async def test_secrets_of_cluster_api(world: World) -> None:
    fleet = Fleet(world, "east")
    members = set_of(fleet, KubeconfigSecrets.cluster_api("fleet"))
    label = {"cluster.x-k8s.io/cluster-name": "prod"}
    world.put(secret("prod-kubeconfig", kubeconfig("https://east.example"), labels=label, key="value"))
    world.put(secret("prod-ca", b"-", labels=label, key="tls.crt"))
    async with world.manager(clusters=[members]):
        await world.settle()
        assert [each.name for each in members.list()] == ["prod"]
        assert events(world, "prod-ca") == []


async def test_the_start_fails_when_secrets_cannot_be_listed(world: World) -> None:
    fleet = Fleet(world, "east")
    members = set_of(fleet)
    world.deny({"list", "watch"}, Secret)

    async def nothing(request: Request[ConfigMap]) -> None: ...

    controller = Controller(ConfigMap, nothing, sync_timeout=30).receives(members.changes(ConfigMap))
    with pytest.raises(CacheNotSynced, match="Secret"):
        async with world.manager(controller, clusters=[members]):
            pass


async def test_a_provider_and_a_set_belong_to_one_manager(world: World) -> None:
    Fleet(world)
    provider = KubeconfigSecrets("fleet")
    one, two = ClusterSet("one", provider=provider), ClusterSet("two", provider=provider)
    with pytest.raises(ConfigurationError, match="belongs to a cluster set already"):
        async with world.manager(clusters=[one, two]):
            await asyncio.sleep(1)
    with pytest.raises(ConfigurationError, match="needs a namespace"):
        KubeconfigSecrets("")
