"""Serves KEDA's external-scaler protocol over gRPC: a `Runnable` of the activator's manager."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Final, NoReturn, TypeVar, final

import grpc
import grpc.aio

from kaito.runtime.errors import ConfigurationError
from kaito.runtime.logging import get_logger
from kaito.runtime.tasks import TaskScope
from kaito.workspace.keda import externalscaler_pb2 as pb
from kaito.workspace.keda.scaler import KedaScaler, ScalerError
from kaito.workspace.keda.trigger import InvalidTrigger, Trigger, parse_trigger

SERVICE: Final = "externalscaler.ExternalScaler"

STREAM_SECONDS: Final = 1.0
"""Interval at which an open stream looks for a change. It reads the cache only."""

MAX_CONCURRENT_CALLS: Final = 1000
"""Calls at a time, of which every trigger of the type external-push has one that stays open."""

MAX_REQUEST_BYTES: Final = 256 * 1024

_GRACE_SECONDS: Final = 5.0

_log = get_logger(__name__)

T = TypeVar("T")
_Context = grpc.aio.ServicerContext[object, object]


@final
class KedaService:
    """The methods of the protocol.

    Args:
        scaler: answers them.
        stream_seconds: interval at which an open stream looks for a change.
    """

    def __init__(self, scaler: KedaScaler, *, stream_seconds: float = STREAM_SECONDS) -> None:
        self._scaler = scaler
        self._stream_seconds = stream_seconds

    async def is_active(self, request: pb.ScaledObjectRef, context: _Context) -> pb.IsActiveResponse:
        """Whether the object is scaled to at least one copy."""
        trigger = await _trigger(request, context)
        return pb.IsActiveResponse(result=await _answer(self._scaler.is_active(trigger), context))

    async def stream_is_active(
        self, request: pb.ScaledObjectRef, context: _Context
    ) -> AsyncIterator[pb.IsActiveResponse]:
        """Yields whether the object is active: at the beginning and at every change."""
        trigger = await _trigger(request, context)
        sent: bool | None = None
        while True:
            active = await _answer(self._scaler.is_active(trigger), context)
            if active is not sent:
                sent = active
                yield pb.IsActiveResponse(result=active)
            await asyncio.sleep(self._stream_seconds)

    async def metric_spec(self, request: pb.ScaledObjectRef, context: _Context) -> pb.GetMetricSpecResponse:
        """Returns the metrics with a target."""
        trigger = await _trigger(request, context)
        return pb.GetMetricSpecResponse(
            metricSpecs=[
                pb.MetricSpec(metricName=metric, targetSize=math.ceil(target), targetSizeFloat=target)
                for metric, target in trigger.targets.items()
            ]
        )

    async def metrics(self, request: pb.GetMetricsRequest, context: _Context) -> pb.GetMetricsResponse:
        """Returns the value of one metric."""
        trigger = await _trigger(request.scaledObjectRef, context)
        value = await _answer(self._scaler.value(trigger, request.metricName), context)
        found = pb.MetricValue(metricName=request.metricName, metricValue=math.ceil(value), metricValueFloat=value)
        return pb.GetMetricsResponse(metricValues=[found])

    def handlers(self) -> grpc.GenericRpcHandler:
        """Returns the methods by name, with the messages of each."""
        ref, spec, metrics = pb.ScaledObjectRef, pb.GetMetricSpecResponse, pb.GetMetricsResponse
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "IsActive": grpc.unary_unary_rpc_method_handler(
                    self.is_active, ref.FromString, pb.IsActiveResponse.SerializeToString
                ),
                "StreamIsActive": grpc.unary_stream_rpc_method_handler(
                    self.stream_is_active, ref.FromString, pb.IsActiveResponse.SerializeToString
                ),
                "GetMetricSpec": grpc.unary_unary_rpc_method_handler(
                    self.metric_spec, ref.FromString, spec.SerializeToString
                ),
                "GetMetrics": grpc.unary_unary_rpc_method_handler(
                    self.metrics, pb.GetMetricsRequest.FromString, metrics.SerializeToString
                ),
            },
        )


async def _trigger(ref: pb.ScaledObjectRef, context: _Context) -> Trigger:
    try:
        return parse_trigger(ref.name, ref.namespace, dict(ref.scalerMetadata))
    except InvalidTrigger as error:
        await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))


async def _answer(question: Awaitable[T], context: _Context) -> T:
    try:
        return await question
    except ScalerError as error:
        await _abort(context, grpc.StatusCode[error.status], str(error))


async def _abort(context: _Context, code: grpc.StatusCode, message: str) -> NoReturn:
    _log.warning("question of KEDA not answered", code=code.name, reason=message)
    await context.abort(code, message)
    raise AssertionError("abort returned")  # its type lacks that it always raises


@final
class KedaServer:
    """The gRPC server.

    Args:
        service: the methods.
        host: address of the listener; empty for all.
        port: port of the listener; 0 for a free one.
        certificates: directory with `tls.crt` and `tls.key`, and optionally `ca.crt`, which then must have issued the
            certificates of clients; None to serve without TLS. Changed files are used for new connections.
    """

    name = "keda-server"
    leader_elected = False

    def __init__(self, service: KedaService, *, host: str, port: int, certificates: Path | None = None) -> None:
        self._service = service
        self._host = f"[{host}]" if ":" in host else host or "[::]"
        self._wanted_port = port
        self._certificates = certificates
        self.port: int | None = None
        """Port of the listener; None until it is open."""

    async def run(self) -> None:
        """Serves until canceled, and then until no call but a stream runs.

        Raises:
            ConfigurationError: the certificate is not valid, or the port is in use.
        """
        server = grpc.aio.server(
            maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS,
            options=[("grpc.max_receive_message_length", MAX_REQUEST_BYTES), ("grpc.so_reuseport", 0)],
        )
        server.add_generic_rpc_handlers((self._service.handlers(),))
        address = f"{self._host}:{self._wanted_port}"
        try:
            if self._certificates is None:
                self.port = server.add_insecure_port(address)
            else:
                self.port = server.add_secure_port(address, await _credentials(self._certificates))
        except RuntimeError as error:
            raise ConfigurationError(f"the port for KEDA, {address}, cannot be opened: {error}") from error
        try:
            await _start(server)
            _log.info("serving KEDA", port=self.port, tls=self._certificates is not None)
            await server.wait_for_termination()
        finally:
            await server.stop(_GRACE_SECONDS)


async def _start(server: grpc.aio.Server) -> None:
    """Starts a server. gRPC fails if a start is canceled: it ends first, and takes no time."""
    async with TaskScope("keda") as scope:
        starting = scope.spawn(server.start(), name="start")
        try:
            await asyncio.wait({starting})
        except asyncio.CancelledError:
            await asyncio.wait({starting})
            raise
        starting.result()


async def _credentials(directory: Path) -> grpc.ServerCredentials:
    """Returns credentials that follow the files.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    try:
        initial = await asyncio.to_thread(_read, directory)
    except OSError as error:
        raise ConfigurationError(f"--keda-cert-dir: {error}") from error
    last = initial

    def changed() -> grpc.ServerCertificateConfiguration:
        """Called by gRPC for every new connection."""
        nonlocal last
        with contextlib.suppress(OSError):  # a Secret is being replaced: the previous certificate stays
            last = _read(directory)
        return _configuration(last)

    needs_client = initial[2] is not None
    return grpc.dynamic_ssl_server_credentials(
        _configuration(initial), changed, require_client_authentication=needs_client
    )


def _read(directory: Path) -> tuple[bytes, bytes, bytes | None]:
    authority = directory / "ca.crt"
    return (
        (directory / "tls.key").read_bytes(),
        (directory / "tls.crt").read_bytes(),
        authority.read_bytes() if authority.exists() else None,
    )


def _configuration(files: tuple[bytes, bytes, bytes | None]) -> grpc.ServerCertificateConfiguration:
    key, certificate, authority = files
    return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=authority)
