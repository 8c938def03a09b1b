"""Adapters that change without a restart: the list, the polls of the pods, condition and status."""

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from kaito.api import Workspace, conditions
from kaito.runtime.kinds import ConfigMap, Pod, StatefulSet
from kaito.runtime.meta import ObjectKey, ObjectMeta
from kaito.workspace import adapter_monitor, pod_polls
from kaito.workspace.adapter_monitor import AdapterMonitor, fetch_report, parse_report
from kaito.workspace.manifests.adapters import adapter_list, list_revision
from kaito.workspace.manifests.inference import inference_stateful_set
from kaito.workspace.plan import Plan
from kaito.workspace.settings import WorkspaceSettings
from test.support.pod_servers import Servers
from test.unit.workspace.test_pod_events import put_pod

if TYPE_CHECKING:
    from test.unit.workspace.conftest import Cluster

NAME = "workspace-phi-3-mini"
ADDRESS = "10.0.0.7"
KEY = ObjectKey("default", NAME)


def adapter(name: str, image: str = "", strength: str = "1.0", *secrets: str) -> dict[str, Any]:
    source = {"name": name, "image": image or f"registry.example/{name}:1", "imagePullSecrets": list(secrets)}
    return {"source": source, "strength": strength}


def with_adapters(workspace: Workspace, *adapters: dict[str, Any]) -> Workspace:
    assert workspace.inference is not None
    return workspace.evolve(inference=workspace.inference.to_dict() | {"adapters": list(adapters)})


@pytest.fixture
def following(plan: Plan) -> Plan:
    """A plan whose server follows the list."""
    assert plan.container is not None
    return replace(plan, container=replace(plan.container, follows_adapter_list=True))


# The pods.


def template(workspace: Workspace, plan: Plan, settings: WorkspaceSettings) -> dict[str, Any]:
    found: dict[str, Any] = inference_stateful_set(workspace, plan, settings).to_dict()["spec"]["template"]
    return found


def test_a_changed_list_does_not_change_the_pods(phi: Workspace, following: Plan, settings: WorkspaceSettings) -> None:
    one = with_adapters(phi, adapter("one", "", "1.0", "pull"))
    for other in (
        with_adapters(phi, adapter("one", "", "0.5", "pull")),
        with_adapters(phi, adapter("one", "registry.example/one:2", "1.0", "pull")),
        with_adapters(phi, adapter("two", "", "1.0", "pull"), adapter("one", "", "1.0")),
    ):
        assert template(other, following, settings) == template(one, following, settings)
        assert list_revision(other, following) != list_revision(one, following)
    another = with_adapters(phi, adapter("one", "", "1.0", "other"))
    assert template(another, following, settings) != template(one, following, settings)


def test_pods_have_the_list_a_store_and_the_credentials(
    phi: Workspace, following: Plan, settings: WorkspaceSettings
) -> None:
    workspace = with_adapters(phi, adapter("two", "", "0.5", "pull"), adapter("one"))
    spec = template(workspace, following, settings)["spec"]
    assert spec.get("initContainers", []) == []
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["adapter-list"]["configMap"] == {"name": f"{NAME}-adapters"}
    assert volumes["adapter-store"] == {"name": "adapter-store", "emptyDir": {}}
    [source] = volumes["docker-config-adapters"]["projected"]["sources"]
    assert source["secret"]["items"] == [{"key": ".dockerconfigjson", "path": "pull.json"}]
    (container,) = spec["containers"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert env["KAITO_ADAPTER_LIST"] == f"{mounts['adapter-list']['mountPath']}/adapters.json"
    assert env["KAITO_ADAPTER_STORE"] == mounts["adapter-store"]["mountPath"]
    assert env["KAITO_ADAPTER_CREDENTIALS"] == mounts["docker-config-adapters"]["mountPath"]
    assert "KAITO_ADAPTER_STRENGTHS" not in env
    config_map = adapter_list(workspace, following)
    assert config_map is not None
    document = json.loads(config_map.data["adapters.json"])
    assert document["revision"] == list_revision(workspace, following)
    assert document["adapters"] == [
        {"name": "one", "image": "registry.example/one:1", "strength": 1.0},
        {"name": "two", "image": "registry.example/two:1", "strength": 0.5},
    ]


def test_volumes_and_other_servers_stay_in_the_template(
    phi: Workspace, plan: Plan, following: Plan, settings: WorkspaceSettings
) -> None:
    assert adapter_list(with_adapters(phi, adapter("one")), plan) is None
    assert adapter_list(phi, following) is None
    claim = {"persistentVolumeClaim": {"claimName": "mine"}}
    volume = with_adapters(phi, {"source": {"name": "disk", "volumeSource": claim}})
    assert adapter_list(volume, following) is None
    assert template(volume, following, settings) == template(volume, plan, settings)


# The controller.


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    found = Servers()
    monkeypatch.setattr(adapter_monitor, "fetch_report", found)
    return found


def report(revision: str, *adapters: tuple[str, str, str]) -> dict[str, Any]:
    entries = [{"name": name, "state": state, "digest": "sha256:1", "message": text} for name, state, text in adapters]
    return {"revision": revision, "problem": "", "adapters": entries}


def wanted_list(cluster: "Cluster") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.world.get(ConfigMap, f"{NAME}-adapters").data["adapters.json"])
    return found


async def serving(cluster: "Cluster", workspace: Workspace) -> None:
    """Applies the Workspace, and has its pod ready at `ADDRESS`."""
    cluster.apply(workspace)
    await cluster.world.settle()
    cluster.join(cluster.claim())
    await cluster.world.settle()
    owner = cluster.world.get(StatefulSet, NAME)
    ready = [{"type": "Ready", "status": "True"}]
    put_pod(cluster, owner, f"{NAME}-0", phase="Running", podIP=ADDRESS, conditions=ready)
    await cluster.world.settle()


async def test_a_list_of_another_owner_is_left_unchanged(cluster: "Cluster", phi: Workspace) -> None:
    cluster.world.put(ConfigMap(metadata=ObjectMeta(name=f"{NAME}-adapters"), data={"theirs": "1"}))
    cluster.apply(with_adapters(phi, adapter("one")))
    async with cluster.controller():
        await cluster.world.settle()
        assert cluster.claims() == []
        assert cluster.conditions()["ResourceReady"][1] == "NameConflict"
        theirs = cluster.world.get(ConfigMap, f"{NAME}-adapters")
        assert (theirs.data, theirs.metadata.owner_references) == ({"theirs": "1"}, [])


async def test_added_adapter_is_loaded_without_a_restart(cluster: "Cluster", phi: Workspace, servers: Servers) -> None:
    async with cluster.controller():
        await serving(cluster, with_adapters(phi, adapter("one")))
        before = cluster.world.get(StatefulSet, NAME).metadata.generation
        servers.documents[ADDRESS] = report(wanted_list(cluster)["revision"], ("one", "Loaded", ""))
        await cluster.world.advance(10)
        assert cluster.conditions()["AdaptersReady"] == ("True", "AdaptersLoaded", "1 of 1 adapters loaded")
        found = cluster.workspace().status.adapters
        assert [(a.name, a.state, a.digest, a.message) for a in found] == [("one", "Loaded", "sha256:1", "")]
        polls = servers.polls
        await cluster.world.advance(60)
        assert servers.polls == polls

        both = [adapter("one"), adapter("two", "", "0.5")]
        cluster.world.patch(Workspace, NAME, {"inference": {"adapters": both}})
        await cluster.world.advance(10)
        assert cluster.world.get(StatefulSet, NAME).metadata.generation == before
        assert [entry["name"] for entry in wanted_list(cluster)["adapters"]] == ["one", "two"]
        status, reason, message = cluster.conditions()["AdaptersReady"]
        assert (status, reason) == ("False", "AdaptersLoading")
        assert f"pod {NAME}-0 has not received the list yet" in message

        servers.documents[ADDRESS] = report(
            wanted_list(cluster)["revision"], ("one", "Loaded", ""), ("two", "Pulling", "")
        )
        await cluster.world.advance(10)
        assert [a.state for a in cluster.workspace().status.adapters] == ["Loaded", "Pulling"]
        assert cluster.conditions()["AdaptersReady"][2] == "1 of 2 adapters loaded; two: pulling"

        servers.documents[ADDRESS] = report(
            wanted_list(cluster)["revision"], ("one", "Loaded", ""), ("two", "Failed", "adapter 'two': no such image")
        )
        await cluster.world.advance(10)
        status, reason, message = cluster.conditions()["AdaptersReady"]
        assert (status, reason) == ("False", "AdapterFailed")
        assert message == f"1 of 2 adapters loaded; two: pod {NAME}-0: adapter 'two': no such image"

        cluster.world.patch(Workspace, NAME, {"inference": {"adapters": [adapter("one")]}})
        servers.documents[ADDRESS] = report("", ("one", "Loaded", ""))
        await cluster.world.advance(10)
        servers.documents[ADDRESS] = report(wanted_list(cluster)["revision"], ("one", "Loaded", ""))
        await cluster.world.advance(10)
        assert cluster.conditions()["AdaptersReady"][0] == "True"
        assert cluster.world.get(StatefulSet, NAME).metadata.generation == before


async def test_workspace_without_adapters_has_no_condition_and_no_polls(
    cluster: "Cluster", phi: Workspace, servers: Servers
) -> None:
    async with cluster.controller():
        await serving(cluster, phi)
        await cluster.world.advance(10)
        assert conditions.ADAPTERS_READY not in cluster.conditions()
        assert (cluster.workspace().status.adapters, servers.polls) == ([], 0)


async def test_edited_list_is_restored(cluster: "Cluster", phi: Workspace, servers: Servers) -> None:
    async with cluster.controller():
        await serving(cluster, with_adapters(phi, adapter("one")))
        right = wanted_list(cluster)
        cluster.world.patch(ConfigMap, f"{NAME}-adapters", {"data": {"adapters.json": "{}"}})
        cluster.world.patch(Workspace, NAME, {"metadata": {"annotations": {"x": "y"}}})
        await cluster.world.advance(400)
        assert wanted_list(cluster) == right


# The polls.


def pod(*, ready: bool = True) -> Pod:
    return Pod.model_validate(
        {
            "metadata": {"name": "p-0", "namespace": "default", "uid": "1"},
            "spec": {"containers": []},
            "status": {
                "podIP": ADDRESS, "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            },
        }
    )  # fmt: skip


async def test_report_of_a_pod_that_is_not_ready_is_forgotten() -> None:
    """Its container restarted, and loads the adapters again."""
    found = Servers()
    found.documents[ADDRESS] = report("1", ("one", "Loaded", ""))
    monitor = AdapterMonitor(found)
    added: list[ObjectKey] = []

    class Queue:
        def add(self, key: ObjectKey, **_: Any) -> None:
            added.append(key)

    one = pod()
    queue: Any = Queue()
    nothing: Any = None
    async with asyncio.TaskGroup() as group:
        task = group.create_task(monitor.run(queue, nothing))
        monitor.watch(KEY, "1", [one])
        for _ in range(20):
            await asyncio.sleep(0)
        assert added == [KEY]
        assert monitor.find(one) is not None
        monitor.watch(KEY, "1", [pod(ready=False)])
        assert monitor.find(one) is None
        monitor.watch(KEY, "", [one])
        assert monitor.find(one) is None
        task.cancel()


@pytest.mark.parametrize("body", [None, b"", b"[]", b'{"revision": 1}', b'{"adapters": [{"name": "a", "state": "?"}]}'])
def test_malformed_reports_are_ignored(body: bytes | None) -> None:
    assert parse_report(body) is None


async def test_report_is_read_from_the_port_of_the_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    async def adapters(_: web.Request) -> web.Response:
        return web.json_response(report("7", ("one", "Loaded", "")))

    app = web.Application()
    app.router.add_get("/adapters", adapters)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setattr(pod_polls, "SERVER_PORT", runner.addresses[0][1])
    found = parse_report(await fetch_report("127.0.0.1"))
    assert found is not None
    assert found.is_settled("7")
    await runner.cleanup()
    assert await fetch_report("127.0.0.1") is None
