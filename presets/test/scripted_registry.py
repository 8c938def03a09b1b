"""A registry that answers from a script, for what a real one does only on bad days."""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str]]
"""Status and headers."""

NO_HEADERS: dict[str, str] = {}


class Scripted(BaseHTTPRequestHandler):
    """Answers from a list; afterwards with 201."""

    script: list[Answer] = []
    seen: list[tuple[str, str, str | None]] = []

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        type(self).seen.append((self.command, self.path, self.headers.get("Authorization")))
        body = b"{}"
        if self.path.startswith("/token"):
            status, headers = 200, dict[str, str]()
            body = b'{"token": "bearer-token"}'
        elif type(self).script:
            status, headers = type(self).script.pop(0)
        else:
            status, headers = 201, {}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(0 if self.command == "HEAD" else len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@contextmanager
def scripted_registry() -> Generator[str]:
    """Serves on loopback; yields host and port. The script and what was seen begin empty."""
    Scripted.script, Scripted.seen = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
