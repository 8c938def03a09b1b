"""An OTLP receiver over HTTP for tests of exported spans."""

import ctypes
import os
import socket
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    service: str
    name: str
    trace: str
    id: str
    parent: str
    seconds: float


class Collector:
    """Receives spans, and answers with `status`; with 0 not until it is closed.

    `listener` is the socket to use, such as one of another network namespace.
    """

    def __init__(self, status: int = 200, listener: socket.socket | None = None) -> None:
        self.spans: list[Span] = []
        self.requested = threading.Event()
        self._released = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.spans += spans_of(ExportTraceServiceRequest.FromString(body))
                collector.requested.set()
                if not status:
                    collector._released.wait()
                    return
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if listener is not None:
            self._server.socket.close()
            self._server.socket = listener
            self._server.server_address = listener.getsockname()
        self._server.daemon_threads = True
        host, port = self._server.socket.getsockname()
        self.url = f"http://{host}:{port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()


_NETWORK = 0x40000000
"""CLONE_NEWNET."""


def listener_in(namespace: Path, host: str) -> socket.socket:
    """Returns a socket that listens in a network namespace. Needs root.

    Raises:
        OSError: the namespace cannot be entered, or the address does not exist there.
    """
    opened: list[socket.socket] = []
    errors: list[OSError] = []

    def listen() -> None:
        # Only this thread enters the namespace; the socket stays in it.
        try:
            with namespace.open("rb") as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _NETWORK):
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(namespace))
            opened.append(socket.create_server((host, 0)))
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return opened[0]


def spans_of(request: ExportTraceServiceRequest) -> list[Span]:
    return [
        Span(
            service=next(each.value.string_value for each in sent.resource.attributes if each.key == "service.name"),
            name=span.name,
            trace=span.trace_id.hex(),
            id=span.span_id.hex(),
            parent=span.parent_span_id.hex(),
            seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        )
        for sent in request.resource_spans
        for scope in sent.scope_spans
        for span in scope.spans
    ]
