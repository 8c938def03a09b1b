"""Serves an OCI registry on loopback, for images that `kaito demo --tuning` pushes and pulls.

It implements the part of the distribution specification that pushes and pulls of complete blobs use, without
authentication, and keeps blobs and manifests in memory.
"""

import contextlib
import hashlib
import secrets
from collections.abc import AsyncGenerator
from typing import Final, final

from aiohttp import web

MAX_BLOB_BYTES: Final = 2**30


@contextlib.asynccontextmanager
async def local_registry() -> AsyncGenerator[str]:
    """Serves a registry for the length of the body; yields its address, `127.0.0.1:PORT`."""
    runner = web.AppRunner(_Registry().application(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@final
class _Registry:
    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._uploads: dict[str, bytearray] = {}
        self._manifests: dict[tuple[str, str], tuple[str, bytes]] = {}

    def application(self) -> web.Application:
        """The routes of the specification."""
        app = web.Application(client_max_size=MAX_BLOB_BYTES)
        app.add_routes(
            [
                web.get("/v2/", self._root),
                web.post("/v2/{name:.+}/blobs/uploads/", self._begin),
                web.patch("/v2/{name:.+}/blobs/uploads/{upload}", self._append),
                web.put("/v2/{name:.+}/blobs/uploads/{upload}", self._finish),
                web.delete("/v2/{name:.+}/blobs/uploads/{upload}", self._cancel),
                web.get("/v2/{name:.+}/blobs/{digest}", self._blob),
                web.put("/v2/{name:.+}/manifests/{reference}", self._put_manifest),
                web.get("/v2/{name:.+}/manifests/{reference}", self._manifest),
            ]
        )
        return app

    async def _root(self, _: web.Request) -> web.Response:
        return web.json_response({})

    async def _begin(self, request: web.Request) -> web.Response:
        identity = secrets.token_hex(8)
        self._uploads[identity] = bytearray()
        location = f"/v2/{request.match_info['name']}/blobs/uploads/{identity}"
        return web.Response(status=202, headers={"Location": location, "Range": "0-0", "Docker-Upload-UUID": identity})

    async def _append(self, request: web.Request) -> web.Response:
        upload = self._upload(request)
        upload += await request.read()
        return web.Response(status=202, headers={"Location": request.path, "Range": f"0-{max(len(upload) - 1, 0)}"})

    async def _finish(self, request: web.Request) -> web.Response:
        content = bytes(self._upload(request)) + await request.read()
        digest = _digest(content)
        if request.query.get("digest") != digest:
            return _error(400, "DIGEST_INVALID", f"the content has the digest {digest}")
        self._uploads.pop(request.match_info["upload"])
        self._blobs[digest] = content
        location = f"/v2/{request.match_info['name']}/blobs/{digest}"
        return web.Response(status=201, headers={"Location": location, "Docker-Content-Digest": digest})

    async def _cancel(self, request: web.Request) -> web.Response:
        self._upload(request)
        self._uploads.pop(request.match_info["upload"])
        return web.Response(status=204)

    def _upload(self, request: web.Request) -> bytearray:
        found = self._uploads.get(request.match_info["upload"])
        if found is None:
            raise web.HTTPNotFound(text="no such upload")
        return found

    async def _blob(self, request: web.Request) -> web.Response:
        digest = request.match_info["digest"]
        content = self._blobs.get(digest)
        if content is None:
            return _error(404, "BLOB_UNKNOWN", digest)
        return web.Response(body=content, headers={"Docker-Content-Digest": digest})

    async def _put_manifest(self, request: web.Request) -> web.Response:
        name, reference = request.match_info["name"], request.match_info["reference"]
        content = await request.read()
        digest = _digest(content)
        for key in {reference, digest}:
            self._manifests[name, key] = (request.content_type, content)
        return web.Response(
            status=201, headers={"Location": f"/v2/{name}/manifests/{digest}", "Docker-Content-Digest": digest}
        )

    async def _manifest(self, request: web.Request) -> web.Response:
        found = self._manifests.get((request.match_info["name"], request.match_info["reference"]))
        if found is None:
            return _error(404, "MANIFEST_UNKNOWN", request.match_info["reference"])
        kind, content = found
        return web.Response(body=content, content_type=kind, headers={"Docker-Content-Digest": _digest(content)})


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"errors": [{"code": code, "message": message}]}, status=status)
