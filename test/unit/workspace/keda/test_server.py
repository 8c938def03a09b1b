"""KEDA's protocol as a gRPC client uses it, to an activator with sockets: values, streams, errors and TLS."""

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from hack.envtest.control_plane import free_port
from kaito.api import Workspace
from kaito.runtime.certs.authority import KeyPair, new_authority, new_leaf
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.manager import Manager, Settings
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import World
from kaito.workspace.activator import listeners
from kaito.workspace.activator.listeners import cached_kinds
from kaito.workspace.activator.main import ActivatorSettings, activator_manager
from kaito.workspace.keda import externalscaler_pb2 as pb
from kaito.workspace.keda.loads import LoadReader
from kaito.workspace.keda.scaler import KedaScaler
from kaito.workspace.keda.server import KedaServer, KedaService
from test.unit.workspace.keda.conftest import METRICS, NAME, Scene

grpc.aio.init_grpc_aio()
"""Otherwise gRPC ends its threads with the last server of a test and starts others for the next one."""

REF = pb.ScaledObjectRef(name="scaled", namespace="default", scalerMetadata={"workspace": NAME, "requests": "16"})


class Client:
    """A client of the protocol, as its generated stub is."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        prefix = "/externalscaler.ExternalScaler/"
        send_ref: Callable[[Any], bytes] = pb.ScaledObjectRef.SerializeToString
        self.is_active = channel.unary_unary(f"{prefix}IsActive", send_ref, pb.IsActiveResponse.FromString)
        self.stream_is_active = channel.unary_stream(
            f"{prefix}StreamIsActive", send_ref, pb.IsActiveResponse.FromString
        )
        self.metric_spec = channel.unary_unary(f"{prefix}GetMetricSpec", send_ref, pb.GetMetricSpecResponse.FromString)
        self.metrics = channel.unary_unary(
            f"{prefix}GetMetrics", pb.GetMetricsRequest.SerializeToString, pb.GetMetricsResponse.FromString
        )


@asynccontextmanager
async def served(scene: Scene, certificates: Path | None = None, *, host: str = "127.0.0.1") -> AsyncGenerator[int]:
    """Runs the server beside the cache of an activator; yields its port."""
    managers: list[Manager] = []
    scaler = KedaScaler(lambda: managers[0].api, LoadReader(scene.world.clock, scene.fetch), lambda _: 0)
    port = free_port()
    service = KedaService(scaler, stream_seconds=0.01)
    server = KedaServer(service, host=host, port=port, certificates=certificates)
    manager = scene.world.manager(cache=cached_kinds(keda=True), runnables=[server])
    managers.append(manager)
    async with manager:
        yield port


@pytest.fixture
async def scene(phi: Workspace) -> AsyncGenerator[Scene]:
    async with World() as world:
        scene = Scene(world)
        scene.workspace(phi, replicas=2)
        scene.copy(0, METRICS.format(running=7, waiting=2))
        scene.copy(1, METRICS.format(running=1, waiting=0.5))
        yield scene


async def test_a_client_of_the_activator_reads_metrics_targets_and_activity(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "ENDPOINT_GRACE_SECONDS", 0.0)
    settings = ActivatorSettings(listen_address="127.0.0.1", keda_port=(port := free_port()))
    manager = activator_manager(
        settings,
        Settings(metrics_bind_address="0", health_probe_bind_address="0"),
        transport=scene.world.transport(),
        clock=scene.world.clock,
        fetch_load=scene.fetch,
    )
    async with manager, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        client = Client(channel)
        spec = await client.metric_spec(REF, wait_for_ready=True)
        assert [(each.metricName, each.targetSize, each.targetSizeFloat) for each in spec.metricSpecs] == [
            ("requests", 16, 16.0)
        ]
        found = await client.metrics(pb.GetMetricsRequest(scaledObjectRef=REF, metricName="requests"))
        assert [(each.metricName, each.metricValue, each.metricValueFloat) for each in found.metricValues] == [
            ("requests", 11, 10.5)
        ]
        assert (await client.is_active(REF)).result is True


async def test_the_address_of_the_listener_may_be_one_of_ipv6(scene: Scene) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6: {error}")
    async with served(scene, host="::1") as port, grpc.aio.insecure_channel(f"[::1]:{port}") as channel:
        assert (await Client(channel).is_active(REF, wait_for_ready=True)).result is True


async def test_a_stream_reports_each_change_of_the_activity(scene: Scene) -> None:
    async with served(scene) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stream = Client(channel).stream_is_active(REF, wait_for_ready=True)
        changes = aiter(stream)
        assert (await anext(changes)).result is True
        scene.world.scale(Workspace, NAME, 0)
        assert (await anext(changes)).result is False
        scene.world.scale(Workspace, NAME, 1)
        assert (await anext(changes)).result is True
        scene.world.delete(Workspace, NAME)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await anext(changes)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_errors_have_a_code_and_a_remedy(scene: Scene) -> None:
    other = pb.ScaledObjectRef(name="scaled", namespace="team", scalerMetadata={"workspace": NAME, "requests": "16"})
    untargeted = pb.ScaledObjectRef(name="scaled", namespace="default", scalerMetadata={"workspace": NAME})
    async with served(scene) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        client = Client(channel)
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await client.is_active(other, wait_for_ready=True)
        assert missing.value.code() is grpc.StatusCode.NOT_FOUND
        assert "Workspace team/phi does not exist" in (missing.value.details() or "")
        with pytest.raises(grpc.aio.AioRpcError) as invalid:
            await client.metric_spec(untargeted)
        assert invalid.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert invalid.value.details() == "the trigger has no target: set metadata.requests, for example to '16'"


def write(folder: Path, pair: KeyPair, authority: KeyPair | None = None) -> None:
    (folder / "tls.crt").write_bytes(pair.certificate)
    (folder / "tls.key").write_bytes(pair.key)
    if authority is not None:
        (folder / "ca.crt").write_bytes(authority.certificate)


async def test_a_new_certificate_is_used_for_new_connections(scene: Scene, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    first, second = new_authority("first", now), new_authority("second", now)
    write(tmp_path, new_leaf(first, ["localhost"], now))
    async with served(scene, tmp_path) as port:
        for authority in (first, second):
            credentials = grpc.ssl_channel_credentials(authority.certificate)
            async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
                assert (await Client(channel).is_active(REF, wait_for_ready=True)).result is True
            write(tmp_path, new_leaf(second, ["localhost"], now))


async def test_a_client_without_a_certificate_is_refused_if_there_is_an_authority(scene: Scene, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = new_authority("ca", now)
    write(tmp_path, new_leaf(authority, ["localhost"], now), authority)
    async with served(scene, tmp_path) as port:
        credentials = grpc.ssl_channel_credentials(authority.certificate)
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await Client(channel).is_active(REF)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_missing_certificate_ends_the_process_with_its_path(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--keda-cert-dir: .*tls\.key"):
        async with served(scene, tmp_path):
            await asyncio.Event().wait()


@pytest.mark.parametrize("steps", range(8))
async def test_a_server_that_is_canceled_while_it_starts_closes_its_port(scene: Scene, steps: int) -> None:
    scaler = KedaScaler(lambda: pytest.fail("no call"), LoadReader(scene.world.clock, scene.fetch), lambda _: 0)
    server = KedaServer(KedaService(scaler), host="127.0.0.1", port=free_port())
    async with TaskScope("test") as scope:
        running = scope.spawn(server.run(), name="server")
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait({running})
    assert asyncio.all_tasks() == {asyncio.current_task()}, "the server stops itself later, if the loop still runs"
    deadline = time.monotonic() + 10
    while server.port is not None and not is_free(server.port):
        assert time.monotonic() < deadline, "the port is not closed"
        await asyncio.sleep(0.01)  # gRPC closes the socket in a thread of its own


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
