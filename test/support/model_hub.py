"""A server with the HTTP API of Hugging Face and one model, with faults."""

import hashlib
import json
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

COMMIT = "c" * 40


@dataclass
class Repository:
    """What the server has, has received and does wrong."""

    folder: Path
    name: str = "org/tiny"
    address: str = ""
    requests: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    """Path, Range and Authorization."""
    answers: list[int] = field(default_factory=list[int])
    cuts: list[int] = field(default_factory=list[int])
    token: str = ""
    description: Mapping[str, Any] | None = None
    ranges: bool = True


class Handler(BaseHTTPRequestHandler):
    """`/api/models/ID/revision/REV` and `/ID/resolve/COMMIT/FILE`."""

    protocol_version = "HTTP/1.1"
    repository: Repository

    def respond(self, status: int, body: bytes = b"", start: int = 0, end: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start:end])
        if end is not None and end < len(body):
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)

    def do_GET(self) -> None:
        hub, path = self.repository, urlsplit(self.path).path
        wanted, authorization = self.headers.get("Range", ""), self.headers.get("Authorization", "")
        hub.requests.append((path, wanted, authorization))
        if hub.answers:
            return self.respond(hub.answers.pop(0))
        if hub.token and authorization != f"Bearer {hub.token}":
            return self.respond(401)
        if path == f"/api/models/{hub.name}/revision/main":
            return self.respond(200, json.dumps(hub.description or self.describe()).encode())
        prefix = f"/{hub.name}/resolve/{COMMIT}/"
        file = hub.folder / path.removeprefix(prefix)
        if not path.startswith(prefix) or not file.is_file():
            return self.respond(404)
        start = int(wanted[6:-1]) if wanted and hub.ranges else 0
        cut = start + hub.cuts.pop(0) if hub.cuts else None
        return self.respond(206 if start else 200, file.read_bytes(), start, cut)

    def describe(self) -> dict[str, Any]:
        files = [path for path in sorted(self.repository.folder.rglob("*")) if path.is_file()]
        siblings: list[dict[str, Any]] = []
        for path in files:
            entry: dict[str, Any] = {"rfilename": path.relative_to(self.repository.folder).as_posix()}
            entry["size"] = path.stat().st_size
            if path.suffix == ".safetensors":
                entry["lfs"] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": entry["size"]}
            siblings.append(entry)
        return {"sha": COMMIT, "siblings": siblings, "cardData": {"license": "mit"}}

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@contextmanager
def serving_hub(repository: Repository) -> Generator[None]:
    handler = type("OneTest", (Handler,), {"repository": repository})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    repository.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
