"""Two real API servers: the second is a cluster of a Secret, is killed with SIGKILL, comes back and is removed."""

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from hack.envtest import ControlPlane
from kaito.runtime import Controller, Manager, ObjectKey, ObjectMeta, Request, Settings, View
from kaito.runtime.client import Client, connect
from kaito.runtime.clusters import ClusterSet, KubeconfigSecrets, Member
from kaito.runtime.clusters.secrets import LABEL
from kaito.runtime.errors import NotFound
from kaito.runtime.kinds import ConfigMap, Event, Namespace, Secret
from test.support.control_plane import real_control_plane

DEADLINE_SECONDS = 90.0
"""Longest time for any change; a machine under load is slow."""

COPIES = "copies"


@pytest.fixture
def second() -> Iterator[ControlPlane]:
    with real_control_plane() as plane:
        yield plane


def kubeconfig(plane: ControlPlane, token: str) -> bytes:
    authority = base64.b64encode(plane.ca_file.read_bytes()).decode()
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": plane.url, "certificate-authority-data": authority}}],
        "users": [{"name": "u", "user": {"token": token}}],
    }
    return json.dumps(document).encode()


def secret(name: str, plane: ControlPlane, token: str) -> Secret:
    metadata = ObjectMeta(name=name, namespace="default", labels={LABEL: "true"})
    return Secret(metadata=metadata).with_values(kubeconfig=kubeconfig(plane, token))


class Copier:
    """Copies the labeled ConfigMaps of the home cluster to the namespace `copies` of every member."""

    def __init__(self) -> None:
        self.members = ClusterSet("members", provider=KubeconfigSecrets("default"))
        self.errors: dict[str, str] = {}
        self.controller = (
            Controller(ConfigMap, self.reconcile, name="copier")
            .watches(ConfigMap, to=self.original, labels="copy=true", cluster=self.members)
            .receives(self.members.changes(ConfigMap))
        )

    @staticmethod
    def original(copy: ConfigMap, view: View) -> ObjectKey | None:
        key = ObjectKey("default", copy.name)
        found = view.home.find(ConfigMap, key.name, key.namespace)
        return key if copy.namespace == COPIES and found is not None else None

    async def reconcile(self, request: Request[ConfigMap]) -> None:
        if request.key.namespace != "default" or request.object.labels.get("copy") != "true":
            return

        async def copy(member: Member) -> None:
            metadata = ObjectMeta(name=request.key.name, namespace=COPIES, labels={"copy": "true"})
            await member.api.ensure(ConfigMap(metadata=metadata, data=request.object.data))

        outcomes = await self.members.each(copy, seconds=5)
        self.errors = {name: str(error) for name, error in outcomes.errors.items()}
        if outcomes.errors:
            request.requeue_after(5, "a cluster could not be reached")


async def eventually(what: str, holds: Callable[[], Any]) -> None:
    last: object = None
    with suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                try:
                    last = await holds()
                    if last:
                        return
                except NotFound as error:
                    last = error
                await asyncio.sleep(0.1)
    pytest.fail(f"{what}: not within {DEADLINE_SECONDS:g} s, last {last}")


@pytest.mark.real
@pytest.mark.timeout(600)
@pytest.mark.conformance("clusters-9")
async def test_a_second_cluster_comes_dies_returns_and_goes(control_plane: ControlPlane, second: ControlPlane) -> None:
    copier = Copier()
    settings = Settings(kubeconfig=control_plane.kubeconfig, metrics_bind_address="0", health_probe_bind_address="0")
    first_secret = secret("first", control_plane, control_plane.token)
    async with (
        connect(control_plane.kubeconfig, field_manager="test") as home,
        connect(second.kubeconfig, field_manager="test") as away,
    ):
        writes = 0

        async def write() -> str:
            nonlocal writes
            writes += 1
            metadata = ObjectMeta(name="original", namespace="default", labels={"copy": "true"})
            await home.apply(ConfigMap(metadata=metadata, data={"v": str(writes)}), force=True)
            return str(writes)

        async def copied(client: Client, content: str) -> bool:
            return (await client.get(ConfigMap, "original", COPIES)).data == {"v": content}

        async def serves_first() -> None:
            content = await write()
            await eventually(f"write {content} in the first", lambda: copied(home, content))

        for client in (home, away):
            await client.apply(Namespace(metadata=ObjectMeta(name=COPIES)), force=True)
        await home.create(first_secret)
        try:
            async with Manager(settings, controllers=[copier.controller], clusters=[copier.members]) as manager:
                await serves_first()
                tasks = len(asyncio.all_tasks())

                # Added while the manager runs.
                created = await home.create(secret("second", second, second.token))
                content = await write()
                await eventually("the second has the copy", lambda: copied(away, content))
                assert manager.metrics.value("kaito_runtime_cluster_up", cluster="second") == 1

                # Drift in the second is repaired.
                metadata = ObjectMeta(name="original", namespace=COPIES, labels={"copy": "true"})
                await away.apply(ConfigMap(metadata=metadata, data={"v": "drift"}), force=True)
                await eventually("the drift is repaired", lambda: copied(away, content))

                # Killed: the first is served, the process stays ready.
                assert second.api_server is not None
                second.api_server.kill()
                second.api_server.wait()
                for _ in range(5):
                    await serves_first()
                    assert manager.readyz.report().healthy
                await eventually("it is reported", lambda: reported(home, "second", "ClusterUnreachable"))
                assert "second" in copier.errors or copier.members.get("second").problem

                # It comes back with the same data, and is caught up.
                await asyncio.to_thread(second.start_api_server)
                await eventually("the copy is current", lambda: copied(away, str(writes)))
                await serves_first()

                # Other credentials: the watches resume, and the old connection is closed.
                rotated = created.with_values(kubeconfig=kubeconfig(second, await token_of_an_account(second)))
                await home.apply(without_version(rotated), force=True)
                content = await write()
                await eventually("the copy came with the new token", lambda: copied(away, content))

                # Removed: nothing is written there, and nothing of it is left.
                await home.delete(created)
                await eventually("it is removed", lambda: gone(copier.members, "second"))
                await serves_first()
                assert (await away.get(ConfigMap, "original", COPIES)).data == {"v": content}
                series = manager.metrics.exposition().decode()
                assert 'cluster="second"' not in series
                assert f"127.0.0.1:{second.port}" not in series
                await eventually("its tasks have ended", lambda: at_most(tasks))
        finally:
            for name in ("first", "second"):
                with suppress(NotFound):
                    await home.delete(secret(name, control_plane, ""))
            with suppress(NotFound):
                await home.delete(ConfigMap(metadata=ObjectMeta(name="original", namespace="default")))


async def reported(client: Client, name: str, reason: str) -> bool:
    events = await client.list(Event, namespace="default")
    return any(each.reason == reason and each.regarding.name == name for each in events)


async def gone(members: ClusterSet, name: str) -> bool:
    return members.find(name) is None


async def at_most(tasks: int) -> bool:
    return len(asyncio.all_tasks()) <= tasks


def without_version(obj: Secret) -> Secret:
    return Secret(
        metadata=ObjectMeta(name=obj.name, namespace=obj.namespace, labels=dict(obj.labels)), data=dict(obj.data)
    )


async def token_of_an_account(plane: ControlPlane) -> str:
    """A token of a service account with all permissions, which the server issues."""
    account = {"metadata": {"name": "operator", "namespace": "default"}}
    binding = {
        "metadata": {"name": "operator"},
        "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": "default"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
    }
    async with connect(plane.kubeconfig, field_manager="test") as client:
        await client.raw("POST", "/api/v1/namespaces/default/serviceaccounts", body=account)
        await client.raw("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", body=binding)
        path = "/api/v1/namespaces/default/serviceaccounts/operator/token"
        answer = await client.raw("POST", path, body={"spec": {}})
    return str(answer["status"]["token"])
