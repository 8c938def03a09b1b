"""A home cluster and several others in the same virtual time, with Secrets that contain their kubeconfigs."""

import base64
import json
from typing import Any

from kaito.runtime import ObjectMeta
from kaito.runtime.client import Transport
from kaito.runtime.client.config import ClusterConfig
from kaito.runtime.clusters.secrets import LABEL
from kaito.runtime.kinds import ConfigMap, Namespace, Secret
from kaito.runtime.testing import InMemoryTransport, World

NAMESPACE = "fleet"


def kubeconfig(server: str, *, user: dict[str, Any] | None = None, cluster: dict[str, Any] | None = None) -> bytes:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "main",
        "contexts": [{"name": "main", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": "u", "user": {"token": "t1"} if user is None else user}],
    }
    return json.dumps(document).encode()


def secret(
    name: str, text: bytes | None = None, *, labels: dict[str, str] | None = None, key: str = "kubeconfig"
) -> Secret:
    encoded = base64.b64encode(kubeconfig(f"https://{name}.example:6443") if text is None else text).decode()
    metadata = ObjectMeta(name=name, namespace=NAMESPACE, labels={LABEL: "true", **(labels or {})})
    return Secret(metadata=metadata, data={key: encoded})


def config(name: str, namespace: str = "default", *, labels: dict[str, str] | None = None, **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace=namespace, labels=labels or {}), data=data)


class Fleet:
    """Worlds by server URL; `connect` of a `ClusterSet` opens in-memory connections to them."""

    def __init__(self, home: World, *names: str) -> None:
        self.home = home
        self.opened: list[InMemoryTransport] = []
        self.authorizations: list[str] = []
        self.worlds = {name: World(seed=number + 2) for number, name in enumerate(names)}
        self.down: set[str] = set()
        home.put(Namespace(metadata=ObjectMeta(name=NAMESPACE)))

    def connect(self, config: ClusterConfig) -> Transport:
        name = config.server.removeprefix("https://").partition(".")[0]
        transport = self.worlds[name].transport(agent=name)
        transport.reachable = name not in self.down
        self.opened.append(transport)
        return transport

    def take_down(self, name: str, *, hang: bool = False) -> None:
        """Resets the connections of a cluster and refuses new ones; or lets every request hang."""
        self.down.add(name)
        world = self.worlds[name]
        for transport in self.opened:
            if transport.server is world.server:
                transport.reachable = hang
                transport.break_streams()
        if hang:
            world.fail_next(hang=True, times=None)

    def bring_back(self, name: str) -> None:
        self.down.discard(name)
        self.worlds[name].heal()
        for transport in self.opened:
            if transport.server is self.worlds[name].server:
                transport.reachable = True

    @property
    def unclosed(self) -> list[InMemoryTransport]:
        return [transport for transport in self.opened if not transport.is_closed]

    @property
    def open_streams(self) -> int:
        return sum(transport.open_streams for transport in self.opened)
