"""Follows the cluster: a listener for each EndpointSlice of a Workspace, and the ready copies of the Workspaces."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, final

from aiohttp import web

from kaito.api import InferenceSet, Workspace, labels
from kaito.runtime import Request
from kaito.runtime.cache import Cached, View
from kaito.runtime.controller import Controller
from kaito.runtime.kinds import EndpointSlice, Pod
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import ObjectKey
from kaito.runtime.reconcile import PeriodicRequest
from kaito.workspace.activator.metrics import ActivatorMetrics
from kaito.workspace.activator.workspaces import HeldWorkspace, HeldWorkspaces
from kaito.workspace.indexes import PODS
from kaito.workspace.manifests.activator import ports_of, slice_name, slice_port, workspace_of

SWEEP_SECONDS: Final = 15.0
"""Interval at which listeners of deleted EndpointSlices are closed."""

ENDPOINT_GRACE_SECONDS: Final = 5.0
"""Time for which a process that ends still accepts connections, until every node has removed its endpoints."""

_log = get_logger(__name__)


@final
class ActivatorServer:
    """The HTTP server with a listener for each Workspace; a `Runnable` of the manager.

    The manager stops it before the controllers, so that Workspaces still become ready while it ends.

    Args:
        application: handles the requests of all ports.
        host: address of the listeners; empty for all.
        drain_seconds: time for running and held requests when the process ends.
    """

    name = "activator-server"
    leader_elected = False

    def __init__(self, application: web.Application, *, host: str, drain_seconds: float) -> None:
        # Nothing is decompressed: the request keeps its content encoding.
        self._runner = web.AppRunner(
            application,
            handler_cancellation=True,
            shutdown_timeout=drain_seconds,
            access_log=None,
            auto_decompress=False,
        )
        self._host = host
        self._sites: dict[int, web.TCPSite] = {}
        self._started = asyncio.Event()

    @property
    def ports(self) -> frozenset[int]:
        """Ports with a listener."""
        return frozenset(self._sites)

    async def run(self) -> None:
        """Serves until canceled, and then until no request runs."""
        await self._runner.setup()
        self._started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(ENDPOINT_GRACE_SECONDS)
            await self._runner.cleanup()

    async def listen(self, port: int) -> None:
        """Opens a listener unless there is one.

        Raises:
            OSError: the port is in use.
        """
        await self._started.wait()
        if port in self._sites:
            return
        site = web.TCPSite(self._runner, self._host or None, port)
        await site.start()
        self._sites[port] = site

    async def close(self, port: int) -> None:
        """Closes a listener; requests that run go on."""
        site = self._sites.pop(port, None)
        if site is not None:
            await site.stop()


@final
class Listeners:
    """Keeps the listeners and the Workspaces as the EndpointSlices and pods of the cluster are."""

    def __init__(self, server: ActivatorServer, workspaces: HeldWorkspaces, metrics: ActivatorMetrics) -> None:
        self._server = server
        self._workspaces = workspaces
        self._metrics = metrics

    async def reconcile(self, request: Request[EndpointSlice]) -> None:
        """Opens the listener of a Workspace, and updates its ready copies.

        Raises:
            OSError: the port is in use; retried with backoff.
        """
        key, port = workspace_of(request.object), slice_port(request.object)
        if key is None or port is None:
            return
        held = self._workspaces.known.get(key)
        if held is None or held.port != port:
            held = HeldWorkspace(key, port, request.api, self._metrics, request.clock)
            self._workspaces.add(held)
        workspace = await request.api.find(Workspace, key.name, key.namespace)
        pods = await request.api.list(Pod, index=PODS(str(key)))
        held.update(workspace, pods)
        await self._server.listen(port)

    async def sweep(self, request: PeriodicRequest) -> None:
        """Closes the listeners of EndpointSlices that do not exist any more."""
        await self.remove_others(await request.api.list(EndpointSlice))

    async def remove_others(self, slices: Iterable[EndpointSlice]) -> None:
        """Removes the Workspaces without one of these EndpointSlices, and closes their listeners."""
        ports = ports_of(slices)
        for key, held in list(self._workspaces.known.items()):
            if ports.get(key) != held.port:
                self._workspaces.remove(key)
        wanted = {held.port for held in self._workspaces.known.values()}
        for port in self._server.ports - wanted:
            await self._server.close(port)
            _log.info("listener closed", port=port)

    def problem(self, slices: Sequence[EndpointSlice]) -> str | None:
        """Returns why the process does not accept the requests of all Workspaces; None if it does."""
        missing = sorted(set(ports_of(slices).values()) - self._server.ports)
        return f"no listener on port {', '.join(map(str, missing))}" if missing else None


def listener_controller(listeners: Listeners) -> Controller[EndpointSlice]:
    """Returns the controller that follows EndpointSlices, pods and Workspaces."""
    return (
        Controller(EndpointSlice, listeners.reconcile, name="listeners", workers=4)
        .watches(Pod, to=_slice_of_pod)
        .watches(Workspace, to=_slice_of_workspace)
    )


def _slice_of_pod(pod: Pod, _: View) -> list[ObjectKey]:
    name = pod.labels.get(labels.WORKSPACE)
    return [ObjectKey(pod.namespace, slice_name(name))] if name else []


def _slice_of_workspace(workspace: Workspace, _: View) -> list[ObjectKey]:
    return [ObjectKey(workspace.namespace, slice_name(workspace.name))]


def cached_kinds(*, keda: bool = False) -> list[Cached]:
    """Returns what the activator caches; for KEDA also InferenceSets."""
    return [
        Cached(EndpointSlice, labels={labels.ACTIVATOR: labels.ACTIVATOR_WORKSPACE}),
        Cached(Pod, labels=labels.WORKSPACE, indexes=[PODS], drop=("metadata.managedFields", "spec.containers")),
        Cached(Workspace),
        *([Cached(InferenceSet)] if keda else []),
    ]
