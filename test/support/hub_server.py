"""A server with the HTTP API of Hugging Face, for the controller: repositories, access, faults."""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    """A model: the bytes of its small files, and the sizes of its large ones."""

    files: dict[str, bytes]
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    commit: str = COMMIT
    gated: bool = False
    token: str = ""
    """The token that has access to the files; empty for everyone."""
    counted: Mapping[str, int] | None = None
    name: str = ""
    without_sizes: bool = False


@dataclass
class HubServer:
    """What the server has, has received and does wrong."""

    repositories: dict[str, Repository] = field(default_factory=dict[str, Repository])
    requests: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    """Path, Range and Authorization."""
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list[tuple[int, dict[str, str]]])
    """Status and headers of the next responses."""
    hang: bool = False
    cut: int = 0
    """Bytes after which the next response ends."""
    body: bytes | None = None
    """Body of the next response instead of the right one."""
    redirect_files_to: str = ""
    """Address to which files are redirected."""
    ranges: bool = True
    address: str = ""
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers one request."""
        self.requests.append((request.path, request.headers.get("Range", ""), request.headers.get("Authorization", "")))
        if self.hang:
            await self.released.wait()
        if self.answers:
            status, headers = self.answers.pop(0)
            return web.Response(status=status, headers=headers)
        if self.body is not None:
            body, self.body = self.body, None
            return web.Response(body=body)
        parts = request.path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) == 4:
            return await self._describe(request, "/".join(parts[2:4]), "main")
        if len(parts) < 5 and parts[2:3] != ["resolve"]:
            return web.Response(status=404)
        if parts[:2] == ["api", "models"] and parts[4] != "revision":
            return web.Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
        if parts[:2] == ["api", "models"]:
            return await self._describe(request, "/".join(parts[2:4]), parts[5])
        return await self._file(request, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    async def _describe(self, request: web.Request, name: str, revision: str) -> web.StreamResponse:
        found = self._repository(name)
        if found is None:
            return web.Response(status=401, headers={"X-Error-Code": "RepoNotFound"})
        if revision not in {"main", "v1", found.commit}:
            return web.Response(status=404, headers={"X-Error-Code": "RevisionNotFound"})
        sizes = {**{each: len(content) for each, content in found.files.items()}, **found.sizes}
        siblings = [
            {"rfilename": each} if found.without_sizes else {"rfilename": each, "size": size}
            for each, size in sizes.items()
        ]
        document: dict[str, Any] = {
            "id": found.name or name,
            "sha": found.commit,
            "gated": "manual" if found.gated else False,
            "siblings": siblings,
            "cardData": {"license": "apache-2.0"},
        }
        if found.counted is not None:
            document["safetensors"] = {"parameters": dict(found.counted), "total": sum(found.counted.values())}
        return await self._send(request, json.dumps(document).encode(), 200, {})

    async def _file(self, request: web.Request, name: str, commit: str, path: str) -> web.StreamResponse:
        found = self._repository(name)
        if found is None or commit != found.commit or path not in {**found.files, **found.sizes}:
            return web.Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
        if self.redirect_files_to:
            return web.Response(status=302, headers={"Location": f"{self.redirect_files_to}{request.path}"})
        if found.token and request.headers.get("Authorization") != f"Bearer {found.token}":
            return web.Response(status=403 if request.headers.get("Authorization") else 401)
        content = found.files.get(path, b"")
        total = found.sizes.get(path, len(content))
        headers = {"ETag": f'"{hashlib.sha256(content[:1024]).hexdigest()}"', "X-Repo-Commit": found.commit}
        wanted = request.headers.get("Range", "")
        if wanted and self.ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            part = content[int(first) : int(last) + 1 if last else None]
            headers["Content-Range"] = f"bytes {first}-{last or total - 1}/{total}"
            return await self._send(request, part, 206, headers)
        return await self._send(request, content, 200, headers)

    async def _send(
        self, request: web.Request, body: bytes, status: int, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = len(body)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        if self.cut:
            await response.write(body[: self.cut])
            self.cut = 0
            if request.transport is not None:
                request.transport.close()
            return response
        await response.write(body)
        return response

    def _repository(self, name: str) -> Repository | None:
        return {key.lower(): value for key, value in self.repositories.items()}.get(name.lower())


@asynccontextmanager
async def hub_server() -> AsyncGenerator[HubServer]:
    """Runs a server on a free port of the loopback interface."""
    hub = HubServer()
    app = web.Application()
    app.router.add_get("/{path:.*}", hub.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    hub.address = f"http://{host}:{port}"
    try:
        yield hub
    finally:
        hub.released.set()
        await runner.cleanup()


def safetensors(tensors: Mapping[str, tuple[str, list[int], int]]) -> bytes:
    """Returns the header of a safetensors file with tensors of a format, a shape and a number of bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text
