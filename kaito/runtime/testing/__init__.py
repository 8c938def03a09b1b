"""Tools for testing operators: an in-memory cluster in virtual time, and test environments with a real API server.

    # conftest.py
    pytest_plugins = ["kaito.runtime.testing.pytest"]

    # test_memcached.py
    async def test_scales(world: World) -> None:
        world.put(Memcached(metadata=ObjectMeta(name="cache"), spec=MemcachedSpec(size=3)))
        async with world.manager(controller):
            await world.settle()
        assert world.get(Deployment, "cache").spec.replicas == 3

`World` is the cluster, `workloads()` simulates Kubernetes' workload controllers, `node()` and `pod()` build ready
objects. `CrashingTransport` simulates crashes. `RealCluster` is a namespace of a real API server. `VirtualTimeLoop` is
for tests that need only time, `ScriptedTransport` for tests of the protocol. Production code never imports this
package. Names are loaded on first use, so that the pytest plugin does not import the in-memory API server.
"""

from typing import TYPE_CHECKING, Any

from kaito.runtime.lazy import load

if TYPE_CHECKING:
    from kaito.runtime.testing.builders import node as node, pod as pod
    from kaito.runtime.testing.cluster import workloads as workloads
    from kaito.runtime.testing.crash import CrashingTransport as CrashingTransport, CrashPoint as CrashPoint
    from kaito.runtime.testing.envtest import RealCluster as RealCluster
    from kaito.runtime.testing.events import EventList as EventList
    from kaito.runtime.testing.pod_streams import (
        ExecCall as ExecCall,
        ExecResult as ExecResult,
        PortCall as PortCall,
    )
    from kaito.runtime.testing.reconciles import ReconcileRecord as ReconcileRecord
    from kaito.runtime.testing.scripted import ScriptedTransport as ScriptedTransport
    from kaito.runtime.testing.transport import InMemoryTransport as InMemoryTransport
    from kaito.runtime.testing.virtual import (
        Deadlock as Deadlock,
        Livelock as Livelock,
        TimeLimitExceeded as TimeLimitExceeded,
        VirtualTimeLoop as VirtualTimeLoop,
    )
    from kaito.runtime.testing.world import NotSettled as NotSettled, World as World

_HOMES = {
    "CrashPoint": "crash",
    "CrashingTransport": "crash",
    "Deadlock": "virtual",
    "EventList": "events",
    "ExecCall": "pod_streams",
    "ExecResult": "pod_streams",
    "InMemoryTransport": "transport",
    "Livelock": "virtual",
    "NotSettled": "world",
    "PortCall": "pod_streams",
    "RealCluster": "envtest",
    "ReconcileRecord": "reconciles",
    "ScriptedTransport": "scripted",
    "TimeLimitExceeded": "virtual",
    "VirtualTimeLoop": "virtual",
    "World": "world",
    "node": "builders",
    "pod": "builders",
    "workloads": "cluster",
}


def __getattr__(name: str) -> Any:
    """Loads a name from its module.

    Raises:
        ModuleNotFoundError: The in-memory API server is not installed.
    """
    try:
        return load(__name__, name, _HOMES)
    except ModuleNotFoundError as error:
        if error.name != "kaito.apiserver":
            raise
        message = f"{__name__}.{name} needs the in-memory API server: pip install 'kaito-runtime[testing]'"
        raise ModuleNotFoundError(message, name=error.name) from error
