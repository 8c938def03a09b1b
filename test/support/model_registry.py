"""A registry of models in memory, with faults: cut connections, delays, wrong bytes, expired tokens, no ranges."""

import hashlib
import json
import re
import struct
import tarfile
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class Content:
    """What the registry stores, what it has received, and its faults."""

    address: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict[str, bytes])
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict[str, tuple[str, bytes]])
    requests: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    """Method, path and Range header."""
    cuts: list[int] = field(default_factory=list[int])
    """Bytes of each of the next downloads of a blob, after which the connection is cut."""
    answers: list[tuple[int, Mapping[str, str]]] = field(default_factory=list[tuple[int, Mapping[str, str]]])
    """Status and headers of the next requests, instead of the real ones."""
    damaged: dict[str, int] = field(default_factory=dict[str, int])
    """Downloads of a blob with a wrong byte, by digest."""
    ranges: bool = True
    barrier: threading.Barrier | None = None
    """If set, each download of a blob waits for the others."""
    hold: threading.Event | None = None
    """If set, downloads of blobs wait for it after the first half."""
    held: threading.Event = field(default_factory=threading.Event)
    authorization: str = ""
    tokens: int = 0
    upload: bytes = b""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def downloads(self) -> list[tuple[str, str]]:
        """Path and range of each download of a blob."""
        return [
            (path.rpartition("/")[2], wanted)
            for method, path, wanted in self.requests
            if method == "GET" and "/blobs/" in path
        ]

    def add(self, *layers: tuple[str, bytes, str], tag: str = "1") -> str:
        """Stores an artifact of layers (media type, blob, file name); returns the digest of its manifest."""
        entries: list[dict[str, Any]] = []
        for media_type, blob, name in layers:
            self.blobs[digest_of(blob)] = blob
            entry = {"mediaType": media_type, "digest": digest_of(blob), "size": len(blob)}
            entries.append(entry | ({"annotations": {"org.cncf.model.filepath": name}} if name else {}))
        document = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "layers": entries}).encode()
        self.manifests[tag] = self.manifests[digest_of(document)] = (MANIFEST, document)
        return digest_of(document)


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one test."""

    protocol_version = "HTTP/1.1"
    content: Content

    def respond(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_request(self) -> None:
        content, url = self.content, urlsplit(self.path)
        received = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with content.lock:
            content.requests.append((self.command, url.path, self.headers.get("Range", "")))
            answer = content.answers.pop(0) if content.answers else None
        if url.path == "/token":
            content.tokens += 1
            content.authorization = f"Bearer t{content.tokens}"
            return self.respond(200, json.dumps({"token": f"t{content.tokens}"}).encode())
        if answer:
            return self.respond(answer[0], b"{}", answer[1])
        if content.authorization and self.headers.get("Authorization") != content.authorization:
            challenge = f'Bearer realm="http://{content.address}/token",service="s"'
            return self.respond(401, headers={"WWW-Authenticate": challenge})
        parts = re.fullmatch(r"(/v2/.+)/(blobs|manifests)/(.*)", url.path)
        if parts is None:
            return self.respond(404)
        repository, kind, name = parts.groups()
        if kind == "manifests" and self.command == "PUT":
            stored = (self.headers["Content-Type"], received)
            content.manifests[name] = content.manifests[digest_of(received)] = stored
            return self.respond(201)
        if kind == "manifests" and name in content.manifests:
            media_type, document = content.manifests[name]
            return self.respond(200, document, {"Content-Type": media_type})
        if kind == "blobs" and self.command == "POST":
            return self.respond(202, headers={"Location": f"{repository}/blobs/uploads/7?state=s"})
        if kind == "blobs" and self.command == "DELETE":
            return self.respond(204)
        if kind == "blobs" and self.command == "PUT":
            (digest,) = parse_qs(url.query)["digest"]
            if digest_of(received) != digest:
                return self.respond(400)
            content.blobs[digest] = received
            return self.respond(201)
        if kind == "blobs" and name in content.blobs:
            return self.respond(200) if self.command == "HEAD" else self.download(name)
        return self.respond(404, b'{"errors": [{"code": "UNKNOWN", "message": "not known"}]}')

    def download(self, digest: str) -> None:
        content = self.content
        body, start = content.blobs[digest], 0
        if content.damaged.get(digest):
            content.damaged[digest] -= 1
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        wanted = self.headers.get("Range", "")
        if wanted and content.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if content.barrier is not None:
            content.barrier.wait(20)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        with content.lock:
            end = start + content.cuts.pop(0) if content.cuts else len(body)
        if content.hold is not None:
            self.wfile.write(body[start : len(body) // 2])
            self.wfile.flush()
            content.held.set()
            content.hold.wait(30)
            start = max(start, len(body) // 2)
        self.wfile.write(body[start:end])
        if end < len(body):
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_request  # noqa: N815


@contextmanager
def model_registry() -> Generator[Content]:
    """Serves on loopback."""
    content = Content()
    handler = type("OneTest", (Handler,), {"content": content})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    content.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield content
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def safetensors(tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]]) -> bytes:
    """A file of the format: number format, shape and data by name."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def model_directory(folder: Path, *, bytes_of_weights: int = 40_000) -> Path:
    """A model of two tensors that passes every check."""
    folder.mkdir(parents=True, exist_ok=True)
    half = bytes_of_weights // 2
    weights = {
        "a": ("BF16", (half // 2,), bytes(index % 251 for index in range(half))),
        "b": ("F32", (half // 8, 2), bytes(index % 241 for index in range(half // 8 * 8))),
    }
    (folder / "config.json").write_text(
        json.dumps(
            {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 8192, "_name_or_path": "org/tiny"}
        )
    )
    (folder / "tokenizer.json").write_text("{}")
    (folder / "generation_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "model.safetensors").write_bytes(safetensors(weights))
    (folder / "pytorch_model.bin").write_bytes(b"a copy")
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Tiny\n")
    (folder / "original").mkdir(exist_ok=True)
    (folder / "original" / "model.safetensors").write_bytes(b"another copy")
    return folder


LOADED = ["chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]
"""The files of `model_directory` that an engine loads."""


def archive(entries: Mapping[str, bytes | tuple[bytes, str]]) -> bytes:
    """A tar archive; an entry that is not bytes is a type and the target of a link."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as opened:
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                entry.size = len(content)
                opened.addfile(entry, BytesIO(content))
            else:
                entry.type, entry.linkname = content
                opened.addfile(entry)
    return buffer.getvalue()
