"""Attacks on sets of clusters: servers that answer nonsense, functions that fail, and storms of changes."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kaito.runtime import Controller, Request, View
from kaito.runtime.client import Api, Transport
from kaito.runtime.client.config import ClusterConfig
from kaito.runtime.client.status import ConditionUpdate
from kaito.runtime.client.transport import Reply
from kaito.runtime.clusters import ClusterRequest, ClusterSet, KubeconfigSecrets, Member
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.kinds import ConfigMap, Secret
from kaito.runtime.meta import ObjectKey, Resource
from kaito.runtime.testing import World
from test.support.cluster_fleet import Fleet, config, kubeconfig, secret


class Nonsense:
    """A server that answers everything with the same body."""

    host = "nonsense.example"

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {"content-type": "text/html"}
        self.body = body

    async def request(self, *_: object, **__: object) -> Reply:
        return Reply(self.status, self.headers, self.body)

    @asynccontextmanager
    async def stream(self, *_: object, **__: object) -> AsyncGenerator["Nonsense"]:
        yield self

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self.body

    async def read(self) -> bytes:
        return self.body

    async def close(self) -> None: ...


async def nothing(request: Request[ConfigMap]) -> None: ...


async def audit_nothing(request: ClusterRequest[ConfigMap]) -> None: ...


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>login</html>"),
        (200, b"{}"),
        (200, b"[]"),
        (200, b""),
        (200, b'{"kind":"ConfigMapList","metadata":{"resourceVersion":"x"},"items":[{"metadata":7}]}'),
        (200, b'{"kind":"Status","code":410}'),
        (302, b""),
        (401, b'{"kind":"Status","message":"Unauthorized"}'),
        (403, b'{"kind":"Status","message":"forbidden"}'),
        (404, b"no such host"),
        (500, b"\xff\x00"),
        (999, b"?"),
    ],
)
async def test_a_server_that_answers_nonsense_affects_only_itself(world: World, status: int, body: bytes) -> None:
    fleet = Fleet(world, "east")
    seen: list[str] = []

    async def audit(request: ClusterRequest[ConfigMap]) -> None:
        seen.append(str(request.key))

    members = ClusterSet("members", connect=fleet.connect)
    members.add("bad", Nonsense(status, body))
    members.add("east", fleet.worlds["east"].transport())
    fleet.worlds["east"].put(config("a"))
    async with world.manager(members.controller(ConfigMap, audit), clusters=[members]) as manager:
        await asyncio.sleep(60)
        fleet.worlds["east"].put(config("b"))
        await asyncio.sleep(1)
        assert seen == ["east:default/a", "east:default/b"]
        assert members.get("bad").problem
        assert manager.readyz.report().healthy
        await members.remove("bad")


async def test_a_kubeconfig_file_that_is_missing_is_tried_again(world: World, tmp_path: Path) -> None:
    fleet = Fleet(world, "east")
    members = ClusterSet("members", connect=fleet.connect)
    members.add("file", tmp_path / "config")
    members.add("east", fleet.worlds["east"].transport())
    async with world.manager(members.controller(ConfigMap, audit_nothing), clusters=[members]):
        await asyncio.sleep(1)
        assert "does not exist" in members.get("file").problem
        assert not members.get("east").problem
        (tmp_path / "config").write_bytes(kubeconfig("https://east.example"))
        await asyncio.sleep(31)
        assert not members.get("file").problem


async def test_the_same_server_twice_keeps_its_series_until_both_are_removed(world: World) -> None:
    members = ClusterSet("members")
    for name in ("one", "two"):
        members.add(name, Nonsense(500, b""))
    async with world.manager(members.controller(ConfigMap, audit_nothing), clusters=[members]) as manager:
        await asyncio.sleep(1)
        members.discard("one")
        await world.settle()
        assert "nonsense.example" in manager.metrics.exposition().decode()
        members.discard("two")
        await asyncio.sleep(60)
        assert "nonsense.example" not in manager.metrics.exposition().decode()


async def test_a_cluster_is_removed_by_a_reconcile_of_its_objects(world: World) -> None:
    fleet = Fleet(world, "east")
    removed: list[str] = []

    async def audit(request: ClusterRequest[ConfigMap]) -> None:
        await members.remove(request.cluster.name)
        removed.append(request.cluster.name)

    members = ClusterSet("members", connect=fleet.connect)
    members.add("east", fleet.worlds["east"].transport())
    fleet.worlds["east"].put(config("a"))
    fleet.worlds["east"].put(config("b"))
    async with world.manager(members.controller(ConfigMap, audit), clusters=[members]) as manager:
        await world.settle()
        assert removed == ["east"]
        assert list(manager.queues[0].dump()) == []


async def test_mappers_and_names_that_raise_delay_only_their_own_event(world: World) -> None:
    fleet = Fleet(world, "east", "west")
    calls: list[str] = []

    def mapper(name: str, view: View) -> list[ObjectKey]:
        calls.append(name)
        if len(calls) == 1:
            raise KeyError(name)
        return [each.key for each in view.list(ConfigMap)]

    def object_mapper(obj: Resource, view: View) -> ObjectKey:
        raise ZeroDivisionError

    def name(each: Secret) -> str:
        if each.name == "west" and not each.labels.get("ok"):
            raise ValueError(each.name)
        return each.name

    provider = KubeconfigSecrets("fleet", name=name)
    members = ClusterSet("members", provider=provider, connect=fleet.connect)
    controller = Controller(ConfigMap, nothing).receives(members.changes(mapper))
    controller.watches(ConfigMap, to=object_mapper, cluster=members)
    fleet.worlds["east"].put(config("x"))
    world.put(secret("west"))
    world.put(secret("east"))
    world.put(config("a"))
    async with world.manager(controller, clusters=[members]):
        await asyncio.sleep(10)
        assert [each.name for each in members.list()] == ["east"]
        assert calls == ["east", "east"]
        world.put(secret("west", labels={"ok": "yes"}))
        await asyncio.sleep(10)
        assert [each.name for each in members.list()] == ["east", "west"]


async def test_a_report_that_hangs_is_given_up_and_repeated(world: World) -> None:
    fleet = Fleet(world, "east", "west")
    reports: list[str] = []

    async def report(about: Secret, condition: ConditionUpdate, api: Api) -> None:
        reports.append(about.name)
        if reports == ["east"]:
            await asyncio.Event().wait()

    members = ClusterSet("members", provider=KubeconfigSecrets("fleet", report=report), connect=fleet.connect)
    world.put(secret("east"))
    world.put(secret("west"))
    async with world.manager(clusters=[members]):
        await asyncio.sleep(31)
        assert reports == ["east", "west"]
        await asyncio.sleep(10)
        assert reports == ["east", "west", "east"]


def change(rng: random.Random, world: World, fleet: Fleet, names: list[str], number: int) -> None:
    """One random change of a Secret or of a server."""
    name = rng.choice(names)
    server = f"https://{rng.choice(names)}.example:6443"
    match rng.randrange(7):
        case 0 | 1:
            world.put(secret(name))
        case 2:
            world.put(secret(name, kubeconfig(f"https://{name}.example:6443", user={"token": str(number)})))
        case 3:
            world.put(secret(name, kubeconfig(server)))
        case 4 if world.find(Secret, name, "fleet") is not None:
            world.delete(Secret, name, "fleet")
        case 5:
            fleet.take_down(name, hang=rng.random() < 0.3)
        case _:
            world.put(secret(name, b"{"))


@pytest.mark.sample(1)
@pytest.mark.parametrize("seed", range(4))
async def test_a_storm_of_changes_ends_in_the_last_state(world: World, seed: int) -> None:
    """Secrets are created, changed, broken and deleted, servers fail and return, at random moments."""
    rng = random.Random(seed)
    names = ["one", "two", "three"]
    fleet = Fleet(world, *names)

    async def copy(request: Request[ConfigMap]) -> None:
        outcomes = await members.each(lambda member: member.api.ensure(config("a").evolve(data=request.object.data)))
        if outcomes.errors:
            request.requeue_after(5)

    members = ClusterSet("members", provider=KubeconfigSecrets("fleet"), connect=fleet.connect)
    controller = Controller(ConfigMap, copy, name="copy").receives(members.changes(ConfigMap))
    controller.watches(ConfigMap, to=lambda obj, _: obj.key, cluster=members)
    world.put(config("a", v="0"))
    async with world.manager(controller, clusters=[members]):
        await world.settle()
        tasks = len(asyncio.all_tasks())
        for number in range(40):
            change(rng, world, fleet, names, number)
            world.put(config("a", v=str(number)))
            await asyncio.sleep(rng.choice([0, 0, 0.01, 1, 20]))
            fleet.bring_back(rng.choice(names))
        for name in names:
            fleet.bring_back(name)
            world.put(secret(name))
        world.put(config("a", v="last"))
        await asyncio.sleep(180)
        assert [each.name for each in members.list() if not each.problem] == sorted(names)
        for each in fleet.worlds.values():
            assert each.get(ConfigMap, "a").data == {"v": "last"}
        assert len(fleet.unclosed) == len(names)
        for name in names:
            world.delete(Secret, name, "fleet")
        await asyncio.sleep(30)
        assert fleet.unclosed == []
        assert fleet.open_streams == 0
        assert len(asyncio.all_tasks()) == tasks


async def test_a_set_belongs_to_one_manager(world: World) -> None:
    members = ClusterSet("members")
    async with world.manager(clusters=[members]):
        with pytest.raises(ConfigurationError, match="belongs to a manager already"):
            async with world.manager(clusters=[members]):
                await asyncio.sleep(1)


async def test_a_function_that_is_cancelled_for_one_cluster_does_not_stop_the_others(world: World) -> None:
    fleet = Fleet(world, "east", "west")
    members = ClusterSet("members", connect=fleet.connect)
    for name, each in fleet.worlds.items():
        members.add(name, each.transport())

    async def call(member: Member) -> str:
        if member.name == "east":
            raise asyncio.CancelledError  # of something that it awaited
        return member.name

    async with world.manager(members.controller(ConfigMap, audit_nothing), clusters=[members]):
        await world.settle()
        outcomes = await members.each(call)
        assert outcomes.results == {"west": "west"}
        assert set(outcomes.errors) == {"east"}
        with pytest.raises(RuntimeError, match="was cancelled"):
            outcomes.raise_errors()


async def test_connecting_fails_for_one_cluster_only(world: World) -> None:
    fleet = Fleet(world, "east", "west")

    def connect(config: ClusterConfig) -> Transport:
        if "west" in config.server:
            message = "no socket"
            raise OSError(message)
        return fleet.connect(config)

    members = ClusterSet("members", provider=KubeconfigSecrets("fleet"), connect=connect)
    world.put(secret("east"))
    world.put(secret("west"))
    async with world.manager(members.controller(ConfigMap, audit_nothing), clusters=[members]):
        await asyncio.sleep(100)
        assert "no socket" in members.get("west").problem
        assert not members.get("east").problem
