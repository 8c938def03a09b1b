"""The client of the provider on a socket: what each answer of the HTTP API becomes."""

from collections.abc import AsyncGenerator

import pytest
from aiohttp import web
from kaito.runtime import Manager, Settings
from kaito.runtime.errors import Retry

from dns_operator.controller import controller
from dns_operator.provider import Provider, lifespan

RECORDS: web.AppKey[dict[str, str]] = web.AppKey("records")
STATUS: web.AppKey[list[int]] = web.AppKey("status")


async def answer(request: web.Request) -> web.Response:
    host, records = request.match_info["host"], request.app[RECORDS]
    if request.app[STATUS]:
        status = request.app[STATUS].pop()
        return web.Response(status=status, headers={"retry-after": "7"} if status in {429, 503} else {})
    if request.method == "PUT":
        records[host] = (await request.json())["address"]
    elif host not in records:
        return web.Response(status=404)
    address = records.pop(host) if request.method == "DELETE" else records[host]
    return web.json_response({"address": address})


@pytest.fixture
async def api() -> AsyncGenerator[tuple[web.Application, str]]:
    application = web.Application()
    application[RECORDS], application[STATUS] = {}, []
    application.router.add_route("*", "/records/{host}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield application, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
async def provider(
    api: tuple[web.Application, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[tuple[web.Application, Provider]]:
    application, url = api
    monkeypatch.setenv("DNS_PROVIDER_URL", url)
    manager = Manager(Settings(), controllers=[controller], lifespan=lifespan)
    async with lifespan(manager) as provider:
        yield application, provider


async def test_records_are_created_read_and_deleted(provider: tuple[web.Application, Provider]) -> None:
    _, dns = provider
    assert await dns.get("a.example.com") is None
    await dns.put("a.example.com", "192.0.2.1")
    assert await dns.get("a.example.com") == "192.0.2.1"
    await dns.delete("a.example.com")
    await dns.delete("a.example.com")
    assert await dns.get("a.example.com") is None


async def test_errors_of_the_provider_have_the_type_of_their_policy(provider: tuple[web.Application, Provider]) -> None:
    application, dns = provider
    application[STATUS].append(429)
    with pytest.raises(Retry, match="answers 429"):
        await dns.put("a.example.com", "192.0.2.1")
    application[STATUS].append(500)
    with pytest.raises(OSError, match="answers 500"):
        await dns.get("a.example.com")


async def test_a_provider_that_is_down_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DNS_PROVIDER_URL", "http://127.0.0.1:1")  # nothing listens on port 1
    async with lifespan(Manager(Settings(), controllers=[controller], lifespan=lifespan)) as dns:
        with pytest.raises(OSError, match="cannot be reached"):
            await dns.get("a.example.com")
