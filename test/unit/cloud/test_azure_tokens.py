"""A token that Azure does not accept any more: the request is sent again with a new one, once."""

from types import SimpleNamespace
from typing import Any, cast, final

import pytest
from aiohttp import web
from azure.core.credentials import AccessToken
from azure.core.pipeline import AsyncPipeline, PipelineResponse
from azure.core.pipeline.policies import AsyncBearerTokenCredentialPolicy
from azure.core.pipeline.transport import AsyncHttpTransport
from azure.core.rest import HttpRequest

from kaito.cloud.azure.credential import FAR_FUTURE, NewTokenPolicy
from kaito.cloud.azure.provider import AzureProvider
from kaito.cloud.azure.settings import AzureSettings
from kaito.cloud.errors import AccessDenied
from kaito.cloud.metrics import CloudMetrics

EXPIRED = {"error": {"code": "ExpiredAuthenticationToken", "message": "The access token has expired."}}


@final
class Azure:
    """Responds 401 to the first requests."""

    def __init__(self, rejected: int) -> None:
        self.rejected = rejected
        self.requests: list[str] = []
        """The method of each."""

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append(request.method)
        if len(self.requests) <= self.rejected:
            return web.json_response(EXPIRED, status=401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
        return web.Response(status=204) if request.method == "DELETE" else web.json_response({"value": []})

    async def serve(self) -> tuple[web.AppRunner, str]:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        return runner, f"http://{host}:{port}"


def provider(endpoint: str) -> AzureProvider:
    settings = AzureSettings(
        subscription_id="00000000-0000-0000-0000-000000000000",
        resource_group="kaito",
        cluster="kaito",
        endpoint=endpoint,
        credential_mode="fake",
    )
    return AzureProvider(settings, CloudMetrics())


async def test_read_and_write_are_sent_again_after_a_401() -> None:
    for method in ("GET", "DELETE"):
        azure = Azure(rejected=1)
        runner, url = await azure.serve()
        client = provider(url)
        try:
            if method == "GET":
                assert await client.list() == []
            else:
                await client.delete("ws1")
            assert azure.requests == [method, method]
        finally:
            await client.close()
            await runner.cleanup()


async def test_identity_that_is_rejected_twice_has_no_permission() -> None:
    azure = Azure(rejected=100)
    runner, url = await azure.serve()
    client = provider(url)
    try:
        with pytest.raises(AccessDenied, match="The access token has expired"):
            await client.list()
        assert len(azure.requests) == 2
    finally:
        await client.close()
        await runner.cleanup()


async def test_second_request_has_another_token() -> None:
    """With the SDK's policy for bearer tokens, whose token is valid for a long time by the local clock."""
    tokens = iter(range(1, 10))
    sent: list[str] = []

    class Credential:
        async def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
            del scopes, kwargs
            return AccessToken(f"token-{next(tokens)}", FAR_FUTURE)

    class Transport(AsyncHttpTransport[Any, Any]):  # type: ignore[misc]  # mypy does not follow the SDK
        async def open(self) -> None: ...
        async def close(self) -> None: ...
        async def __aexit__(self, *_: object) -> None: ...

        async def send(self, request: Any, **kwargs: Any) -> Any:
            del kwargs
            sent.append(request.headers["Authorization"])
            return SimpleNamespace(status_code=401 if len(sent) == 1 else 200, headers={})

    bearer = cast("Any", AsyncBearerTokenCredentialPolicy)(Credential(), "scope")
    pipeline = AsyncPipeline[Any, Any](Transport(), [NewTokenPolicy(), bearer])
    response: PipelineResponse[Any, Any] = await pipeline.run(HttpRequest("GET", "https://azure.example.com/"))
    assert response.http_response.status_code == 200
    assert sent == ["Bearer token-1", "Bearer token-2"]
