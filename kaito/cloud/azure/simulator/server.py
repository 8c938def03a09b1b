"""The simulator on a socket: ARM requests on every path, and `/__admin/*` to script it from outside.

The admin routes are for tests, demos and curious people; they are as unauthenticated as the rest of the simulator,
which is why it only binds to loopback unless told otherwise.
"""

import contextlib
import json
from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import Any, cast

from aiohttp import web
from pydantic import ValidationError

from kaito.cloud.azure.simulator.faults import Fault
from kaito.cloud.azure.simulator.named_faults import named
from kaito.cloud.azure.simulator.simulator import Simulator
from kaito.cloud.azure.simulator.wire import Answer, ArmError, Exchange

ADMIN = "/__admin"
LARGEST_BODY_BYTES = 4 * 1024 * 1024


@contextlib.asynccontextmanager
async def serve(simulator: Simulator, *, host: str = "127.0.0.1", port: int = 0) -> AsyncGenerator[str, None]:
    """Listen while the body runs; gives the base URL. Port 0 picks a free one."""
    app = web.Application(client_max_size=LARGEST_BODY_BYTES)
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
        url = f"{request.scheme}://{request.host}{request.raw_path}"  # as sent: a signed query must not be rewritten
        exchange = Exchange.parse(request.method, url, dict(request.headers), body)
        if "authorization" not in exchange.headers:
            refused = ArmError(
                401, "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing."
            )
            return _response(refused.answer())
        answer = await simulator.api.handle(exchange)
        if answer.drop:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        return _response(answer)

    return handle


def _response(answer: Answer) -> web.Response:
    body = answer.encode()
    headers = {"Content-Type": "application/json; charset=utf-8"} if body else {}
    return web.Response(status=answer.status, body=body, headers={**headers, **answer.headers})


class Admin:
    """The routes below `/__admin`: look at the state, script faults, play the person at the portal."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def mount(self, app: web.Application) -> None:
        """Add the routes."""
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
        """`ok` as soon as the socket listens."""
        return web.Response(text="ok")

    async def state(self, _request: web.Request) -> web.Response:
        """Pools, operations in flight, faults in force, quota."""
        return web.json_response(self._simulator.snapshot())

    async def requests(self, _request: web.Request) -> web.Response:
        """The log of ARM requests, oldest first."""
        return web.json_response([asdict(entry) for entry in self._simulator.api.requests])

    async def add_fault(self, request: web.Request) -> web.Response:
        """A `Fault` as JSON, or `{"named": "throttled", "times": 3}`."""
        document = await _object(request)
        try:
            ready = document.pop("named", None)
            fault = named(ready, **document) if ready else Fault(**document)
        except (ValidationError, KeyError) as error:
            raise web.HTTPBadRequest(text=f"no such fault: {error}") from error
        self._simulator.faults.add(fault)
        return web.json_response(fault.model_dump(mode="json"), status=201)

    async def clear_faults(self, request: web.Request) -> web.Response:
        """Drop all faults, or those of `?name=`."""
        self._simulator.faults.clear(request.query.get("name"))
        return web.Response(status=204)

    async def set_quota(self, request: web.Request) -> web.Response:
        """`{"StandardNCADSA100v4Family": 24}`; null goes back to the default."""
        _merge(self._simulator.cluster.quota, await _object(request))
        return web.json_response(self._simulator.cluster.quota)

    async def set_capacity(self, request: web.Request) -> web.Response:
        """`{"Standard_NC24ads_A100_v4": 0}`: machines left; null means plenty."""
        _merge(self._simulator.cluster.capacity, await _object(request))
        return web.json_response(self._simulator.cluster.capacity)

    async def put_pool(self, request: web.Request) -> web.Response:
        """Make a pool as somebody else would: `{"vmSize": "Standard_D4s_v5", "nodeLabels": {…}}`."""
        try:
            pool, _ = self._simulator.cluster.put(request.match_info["name"], {"properties": await _object(request)})
        except ArmError as error:
            return _response(error.answer())
        return web.json_response({"name": pool.name, "state": pool.state}, status=201)

    async def delete_pool(self, request: web.Request) -> web.Response:
        """Delete a pool as a person at the portal would."""
        pool = self._simulator.cluster.delete(request.match_info["name"])
        return web.Response(status=202 if pool else 404)

    async def set_knobs(self, request: web.Request) -> web.Response:
        """`{"pool": "ws.*", "never_join": true}`: how nodes of those pools behave from now on."""
        document = await _object(request)
        try:
            self._simulator.knobs.set(str(document.pop("pool", ".*")), **document)
        except (ValidationError, TypeError) as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        return web.Response(status=204)

    async def reset(self, _request: web.Request) -> web.Response:
        """Forget pools, faults, ledgers and the request log."""
        self._simulator.reset()
        return web.Response(status=204)


async def _object(request: web.Request) -> dict[str, Any]:
    try:
        document: object = json.loads(await request.text() or "{}")
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise web.HTTPBadRequest(text="a JSON object is expected")
    return cast("dict[str, Any]", document)


def _merge(ledger: dict[str, int], changes: dict[str, Any]) -> None:
    for name, limit in changes.items():
        if limit is None:
            ledger.pop(name.lower(), None)
        else:
            ledger[name.lower()] = int(limit)
