"""A registry in memory: pushes, pulls, tokens. It verifies what a real registry verifies of a push."""

import hashlib
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Content:
    """What the registry stores and has received."""

    blobs: dict[str, bytes] = field(default_factory=dict[str, bytes])
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict[str, tuple[str, bytes]])
    """Media type and document by tag or digest."""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list[tuple[str, str, dict[str, str]]])
    truncated: int = 0
    """Downloads of blobs that end early."""
    challenge: str = ""
    """If set, requests without `authorization` are rejected with it."""
    authorization: str = ""
    token: bytes = b'{"token": "t"}'
    token_status: int = 200
    forms: list[bytes] = field(default_factory=list[bytes])
    """Bodies that the token service has received."""


class MemoryRegistry(BaseHTTPRequestHandler):
    """Handles the requests of one test."""

    protocol_version = "HTTP/1.1"
    content = Content()

    def _respond(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _handle(self) -> None:
        content, url = self.content, urlsplit(self.path)
        length = self.headers.get("Content-Length")
        received = self.rfile.read(int(length)) if length else b""
        content.requests.append((self.command, self.path, dict(self.headers)))
        if url.path == "/token":
            content.forms.append(received)
            return self._respond(content.token_status, content.token)
        if content.challenge and self.headers.get("Authorization") != content.authorization:
            return self._respond(401, WWW_Authenticate=content.challenge)
        kind, _, name = url.path.removeprefix("/v2/team/x/").partition("/")
        if kind == "blobs" and self.command in ("GET", "HEAD"):
            return self._blob(name)
        if kind == "blobs" and self.command == "POST":
            return self._respond(202, Location="/v2/team/x/blobs/uploads/7?state=s")
        if kind == "blobs" and self.command == "PUT":
            (digest,) = parse_qs(url.query)["digest"]
            valid = "state=s" in url.query and length and f"sha256:{hashlib.sha256(received).hexdigest()}" == digest
            content.blobs[digest] = received
            return self._respond(201 if valid else 400)
        if kind == "manifests" and self.command == "PUT":
            digest = f"sha256:{hashlib.sha256(received).hexdigest()}"
            content.manifests[name] = content.manifests[digest] = (self.headers["Content-Type"], received)
            return self._respond(201)
        if kind == "manifests" and name in content.manifests:
            media_type, document = content.manifests[name]
            return self._respond(200, document, Content_Type=media_type)
        return self._respond(404, b'{"errors": [{"code": "UNKNOWN", "message": "not known"}, {"code": "SECOND"}]}')

    def _blob(self, digest: str) -> None:
        content = self.content
        if digest not in content.blobs:
            return self._respond(404)
        body = content.blobs[digest]
        if self.command == "GET" and content.truncated:
            content.truncated -= 1
            body = body[:-1]
        return self._respond(200, body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle  # noqa: N815 - the names of the base class


@contextmanager
def memory_registry() -> Generator[tuple[str, Content]]:
    """Serves on loopback; yields the address and the content."""
    content = MemoryRegistry.content = Content()
    server = ThreadingHTTPServer(("127.0.0.1", 0), MemoryRegistry)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", content
    finally:
        server.shutdown()
        server.server_close()
