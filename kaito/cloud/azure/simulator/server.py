"""Serves the simulator over HTTP: ARM on all paths, and an admin API below `/__admin` to change its state.

Neither checks credentials. The server therefore listens on loopback by default.
"""

import contextlib
import json
from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import Any, cast

from aiohttp import web
from pydantic import ValidationError

from kaito.cloud.azure.simulator.faults import Fault
from kaito.cloud.azure.simulator.http import ArmError, ArmRequest, ArmResponse
from kaito.cloud.azure.simulator.named_faults import named
from kaito.cloud.azure.simulator.simulator import Simulator

ADMIN = "/__admin"
MAX_BODY_BYTES = 4 * 1024 * 1024


@contextlib.asynccontextmanager
async def serve(simulator: Simulator, *, host: str = "127.0.0.1", port: int = 0) -> AsyncGenerator[str, None]:
    """Serves while the body runs; yields the base URL. Port 0 selects a free port."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    Admin(simulator).mount(app)
    app.router.add_route("*", "/{tail:.*}", _arm_handler(simulator))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    try:
        address = runner.addresses[0]
        yield f"http://{address[0]}:{address[1]}"
    finally:
        await runner.cleanup()


def _arm_handler(simulator: Simulator) -> Any:
    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        url = f"{request.scheme}://{request.host}{request.raw_path}"  # unchanged: a signed query must not be rewritten
        arm_request = ArmRequest.parse(request.method, url, dict(request.headers), body)
        if "authorization" not in arm_request.headers:
            error = ArmError(
                401, "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing."
            )
            return _response(error.response())
        response = await simulator.api.handle(arm_request)
        if response.drop:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        return _response(response)

    return handle


def _response(response: ArmResponse) -> web.Response:
    body = response.encode()
    headers = {"Content-Type": "application/json; charset=utf-8"} if body else {}
    return web.Response(status=response.status, body=body, headers={**headers, **response.headers})


class Admin:
    """Routes below `/__admin`: read the state, add faults, and change pools like a user of the Azure portal."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def mount(self, app: web.Application) -> None:
        """Adds the routes."""
        app.add_routes(
            [
                web.get(f"{ADMIN}/healthz", self.health),
                web.get(f"{ADMIN}/state", self.state),
                web.get(f"{ADMIN}/requests", self.requests),
                web.post(f"{ADMIN}/faults", self.add_fault),
                web.delete(f"{ADMIN}/faults", self.clear_faults),
                web.put(f"{ADMIN}/quota", self.set_quota),
                web.put(f"{ADMIN}/capacity", self.set_capacity),
                web.put(f"{ADMIN}/pools/{{name}}", self.put_pool),
                web.delete(f"{ADMIN}/pools/{{name}}", self.delete_pool),
                web.put(f"{ADMIN}/knobs", self.set_knobs),
                web.post(f"{ADMIN}/reset", self.reset),
            ]
        )

    async def health(self, _request: web.Request) -> web.Response:
        """Returns `ok`."""
        return web.Response(text="ok")

    async def state(self, _request: web.Request) -> web.Response:
        """Returns pools, running operations, active faults, and quota."""
        return web.json_response(self._simulator.snapshot())

    async def requests(self, _request: web.Request) -> web.Response:
        """Returns the log of ARM requests, oldest first."""
        return web.json_response([asdict(entry) for entry in self._simulator.api.requests])

    async def add_fault(self, request: web.Request) -> web.Response:
        """Adds a fault: a `Fault` as JSON, or `{"named": "throttled", "times": 3}`."""
        document = await _object(request)
        try:
            name = document.pop("named", None)
            fault = named(name, **document) if name else Fault(**document)
        except (ValidationError, KeyError) as error:
            raise web.HTTPBadRequest(text=f"invalid fault: {error}") from error
        self._simulator.faults.add(fault)
        return web.json_response(fault.model_dump(mode="json"), status=201)

    async def clear_faults(self, request: web.Request) -> web.Response:
        """Removes all faults, or those with the name of `?name=`."""
        self._simulator.faults.clear(request.query.get("name"))
        return web.Response(status=204)

    async def set_quota(self, request: web.Request) -> web.Response:
        """Sets quotas, for example `{"StandardNCADSA100v4Family": 24}`; null restores the default."""
        _merge(self._simulator.cluster.quota, await _object(request))
        return web.json_response(self._simulator.cluster.quota)

    async def set_capacity(self, request: web.Request) -> web.Response:
        """Sets remaining instances, for example `{"Standard_NC24ads_A100_v4": 0}`; null removes the limit."""
        _merge(self._simulator.cluster.capacity, await _object(request))
        return web.json_response(self._simulator.cluster.capacity)

    async def put_pool(self, request: web.Request) -> web.Response:
        """Creates a pool of another owner: `{"vmSize": "Standard_D4s_v5", "nodeLabels": {…}}`."""
        try:
            pool, _ = self._simulator.cluster.put(request.match_info["name"], {"properties": await _object(request)})
        except ArmError as error:
            return _response(error.response())
        return web.json_response({"name": pool.name, "state": pool.state}, status=201)

    async def delete_pool(self, request: web.Request) -> web.Response:
        """Deletes a pool like a user of the Azure portal."""
        pool = self._simulator.cluster.delete(request.match_info["name"])
        return web.Response(status=202 if pool else 404)

    async def set_knobs(self, request: web.Request) -> web.Response:
        """Sets knobs of pools, for example `{"pool": "ws.*", "never_join": true}`."""
        document = await _object(request)
        try:
            self._simulator.knobs.set(str(document.pop("pool", ".*")), **document)
        except (ValidationError, TypeError) as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        return web.Response(status=204)

    async def reset(self, _request: web.Request) -> web.Response:
        """Removes pools, faults, quotas, capacities, knobs and the request log."""
        self._simulator.reset()
        return web.Response(status=204)


async def _object(request: web.Request) -> dict[str, Any]:
    try:
        document: object = json.loads(await request.text() or "{}")
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise web.HTTPBadRequest(text="the body is not a JSON object")
    return cast("dict[str, Any]", document)


def _merge(values: dict[str, int], changes: dict[str, Any]) -> None:
    for name, limit in changes.items():
        if limit is None:
            values.pop(name.lower(), None)
        else:
            values[name.lower()] = int(limit)
