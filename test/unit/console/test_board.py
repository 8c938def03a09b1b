"""The board and the stream in virtual time: what is computed and sent when something changes."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest

from kaito.api import Machine, Workspace, crds
from kaito.console.board import KEPT_CHANGES, Board
from kaito.console.cluster.situations import Situations
from kaito.console.security.refusal import Refusal
from kaito.console.stream import SEND_SECONDS, EventStream
from kaito.console.views.json_values import Json
from kaito.console.watch import ClusterWatch
from kaito.runtime.kinds import Pod
from kaito.runtime.meta import ObjectKey
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import World
from test.unit.console.conftest import ready, workspace


class Browser:
    """The response of a stream: parses what is written, as slowly as the test wants."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def write(self, data: bytes) -> None:
        await self.open.wait()
        for block in data.decode().strip().split("\n\n"):
            fields: dict[str, str] = {}
            for line in block.split("\n"):
                name, _, value = line.partition(": ")
                fields[name] = value
            self.events.append((fields.get("event", "comment"), json.loads(fields.get("data", "null"))))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """The rows as the page has them."""
        found: dict[str, dict[str, Any]] = {}
        for name, data in self.events:
            if name == "snapshot":
                found = {row["name"]: row for row in data["workspaces"]}
            elif name == "change":
                found |= {row["name"]: row for row in data["upserts"]}
                for key in data["deletes"]:
                    del found[key.partition("/")[2]]
        return found


class Sight:
    """What the reader may see."""

    def __init__(self) -> None:
        self.hidden: set[str] = set()
        self.broken = False

    async def namespaces(self) -> Callable[[str], bool]:
        if self.broken:
            raise Refusal(503, "the API server does not answer")
        hidden = frozenset(self.hidden)

        def visible(namespace: str) -> bool:
            return namespace not in hidden

        return visible


class Scene:
    """A cluster with a console, and readers of it."""

    def __init__(self, world: World, watch: ClusterWatch, scope: TaskScope) -> None:
        self.world, self.watch, self.scope = world, watch, scope

    @property
    def board(self) -> Board:
        return self.watch.board

    def read(self, browser: Browser, sight: Sight | None = None) -> asyncio.Task[None]:
        stream = EventStream(self.board, self.watch.reachability, self.watch.money, sight or Sight())
        response: Any = browser
        return self.scope.spawn(_until_refused(stream.run(response)), name="reader")

    async def pass_time(self, seconds: float = 2.0) -> None:
        await asyncio.sleep(seconds)

    def status(self, name: str, namespace: str = "default", **changes: Any) -> None:
        self.world.patch(Workspace, name, {"status": ready() | changes}, namespace, subresource="status")


async def _until_refused(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except (Refusal, TimeoutError):
        return


@pytest.fixture
async def scene(world: World) -> AsyncIterator[Scene]:
    world.install(*crds.manifests())
    async with AsyncExitStack() as stack:
        scope = await stack.enter_async_context(TaskScope("test"))
        watch = ClusterWatch(world.transport(), world.clock)
        scope.spawn(watch.run(), name="watch")
        found = Scene(world, watch, scope)
        await found.pass_time()
        yield found


async def test_rows_follow_the_workspace(scene: Scene) -> None:
    browser = Browser()
    scene.read(browser)
    await scene.pass_time()
    scene.world.put(workspace())
    await scene.pass_time()
    assert browser.rows["phi"]["state"] == "progressing"
    scene.status("phi")
    await scene.pass_time()
    assert browser.rows["phi"]["state"] == "ready"
    scene.world.delete(Workspace, "phi")
    await scene.pass_time()
    assert browser.rows == {}
    assert browser.names[0] == "snapshot"
    assert set(browser.names[1:]) == {"change"}


async def test_a_change_computes_the_rows_that_it_concerns_and_no_other(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        scene.world.put(workspace(f"w{number}"))
        scene.status(f"w{number}")
    await scene.pass_time(5)
    computed: list[str] = []
    find = Situations.find

    def counted(situations: Situations, key: ObjectKey) -> Workspace | None:
        computed.append(key.name)
        return find(situations, key)

    monkeypatch.setattr(Situations, "find", counted)
    owner = {"kaito.sh/workspace": "w7", "kaito.sh/workspacenamespace": "default"}
    scene.world.put(Machine.model_validate({"metadata": {"name": "m", "labels": owner}}))
    labels = {"kaito.sh/workspace": "w9"}
    pod: dict[str, Any] = {"metadata": {"name": "w9-0", "namespace": "default", "labels": labels}}
    pod["spec"] = {"containers": [{"name": "model", "image": "model"}]}
    scene.world.put(Pod.model_validate(pod))
    await scene.pass_time(5)
    assert set(computed) == {"w7", "w9"}


async def test_bursts_are_sent_at_most_five_times_a_second(scene: Scene) -> None:
    scene.world.put(workspace())
    browser = Browser()
    scene.read(browser)
    await scene.pass_time()
    before = len(browser.events)
    for number in range(100):
        scene.status("phi", readyReplicas=number % 2, replicas=number)
        await scene.pass_time(0.01)
    await scene.pass_time(1)
    assert 1 < len(browser.events) - before <= 6
    assert browser.rows["phi"]["copies"]["ready"] == 1


async def test_a_slow_reader_gets_the_newest_rows_and_occupies_no_memory(scene: Scene) -> None:
    scene.world.put(workspace())
    browser = Browser()
    scene.read(browser)
    await scene.pass_time()
    browser.open.clear()
    for number in range(20):
        scene.status("phi", replicas=number)
        await scene.pass_time(0.5)
    browser.open.set()
    before = len(browser.events)
    await scene.pass_time()
    assert len(browser.events) - before <= 2
    scene.status("phi", replicas=3, readyReplicas=3)
    await scene.pass_time()
    assert browser.rows["phi"]["copies"]["ready"] == 3


async def test_a_reader_that_is_too_far_behind_gets_a_snapshot(scene: Scene) -> None:
    scene.world.put(workspace())
    browser = Browser()
    scene.read(browser)
    await scene.pass_time()
    browser.open.clear()
    scene.status("phi", replicas=1)
    await scene.pass_time()
    for _ in range(KEPT_CHANGES + 1):
        scene.board.publish([ObjectKey("default", "phi")])
    browser.open.set()
    await scene.pass_time()
    assert browser.names.count("snapshot") == 2


async def test_a_reader_that_takes_nothing_is_dropped(scene: Scene) -> None:
    browser = Browser()
    browser.open.clear()
    task = scene.read(browser)
    await scene.pass_time(SEND_SECONDS - 5)
    assert not task.done()
    await scene.pass_time(10)
    assert task.done()


async def test_quiet_streams_are_kept_alive(scene: Scene) -> None:
    browser = Browser()
    scene.read(browser)
    await scene.pass_time(61)
    assert browser.names == ["snapshot", "comment", "comment", "comment", "comment"][: len(browser.names)]
    assert 3 <= browser.names.count("comment") <= 4


async def test_rights_that_change_reveal_and_hide_rows(scene: Scene) -> None:
    scene.world.put(workspace())
    browser, sight = Browser(), Sight()
    sight.hidden.add("default")
    scene.read(browser, sight)
    await scene.pass_time()
    assert browser.rows == {}
    sight.hidden.clear()
    await scene.pass_time()
    assert set(browser.rows) == {"phi"}
    sight.hidden.add("default")
    await scene.pass_time()
    assert browser.rows == {}


async def test_a_stream_ends_if_rights_cannot_be_checked_for_a_minute(scene: Scene) -> None:
    browser, sight = Browser(), Sight()
    task = scene.read(browser, sight)
    await scene.pass_time()
    sight.broken = True
    await scene.pass_time(50)
    assert not task.done()
    await scene.pass_time(20)
    assert task.done()


async def test_an_api_server_that_is_away_is_reported(scene: Scene) -> None:
    scene.world.put(workspace())
    browser = Browser()
    scene.read(browser)
    await scene.pass_time()
    scene.world.fail_next("GET", Workspace, status=503, times=20)
    scene.world.cut_watches()
    await scene.pass_time(20)
    assert "problem" in browser.names
    scene.world.heal()
    await scene.pass_time(120)
    assert "recovered" in browser.names
    problems = [data for name, data in browser.events if name == "problem"]
    assert "does not answer" in problems[0]["message"]


async def test_a_cluster_without_claims_of_one_kind_is_complete(world: World) -> None:
    world.install(*[each for each in crds.manifests() if each["spec"]["names"]["kind"] != "Machine"])
    async with TaskScope("test") as scope:
        watch = ClusterWatch(world.transport(), world.clock)
        scope.spawn(watch.run(), name="watch")
        found = world.put(workspace())
        await asyncio.sleep(5)
        situation = watch.situations.read(watch.situations.find(found.key) or found, world.now)
        assert situation.unread == {}


async def test_what_the_account_may_not_list_is_named(world: World) -> None:
    world.install(*crds.manifests())
    world.put(workspace())
    world.deny("list", Pod)
    world.deny("watch", Pod)
    async with TaskScope("test") as scope:
        watch = ClusterWatch(world.transport(), world.clock)
        scope.spawn(watch.run(), name="watch")
        await asyncio.sleep(10)
        (entry,) = watch.board.entries.values()
        assert any("pods could not be read" in note for note in entry.diagnosis.notes)


def history(money: Json) -> list[Any]:
    return cast("list[Any]", money["history"])


async def test_an_hour_of_cost_is_kept(scene: Scene) -> None:
    await scene.pass_time(2 * 3600)
    money = scene.watch.money(lambda _: True)
    assert len(history(money)) == 240
