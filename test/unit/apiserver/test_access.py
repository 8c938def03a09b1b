"""Access: bearer tokens, and where a server on a socket can be reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import pytest

from kaito.apiserver import ApiServer, serve

if TYPE_CHECKING:
    from test.unit.apiserver.conftest import Client

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"


@pytest.fixture
def server() -> ApiServer:
    return ApiServer(tokens={"secret": "alice"})


async def test_a_token_is_required_where_any_is_known(client: Client) -> None:
    refused = await client.call("GET", "/api/v1/namespaces")
    assert (refused.status, refused.body["reason"]) == (401, "Unauthorized")
    welcome = await client.call("GET", "/api/v1/namespaces", headers={"authorization": "Bearer secret"})
    assert welcome.status == 200


async def test_token_reviews_know_the_tokens(client: Client) -> None:
    for token, status in (("secret", {"authenticated": True, "user": {"username": "alice"}}), ("other", None)):
        body = {"spec": {"token": token}}
        answer = await client.call("POST", REVIEWS, body, headers={"authorization": "Bearer secret"})
        assert answer.status == 201
        if status is not None:
            assert answer.body["status"] == status
        else:
            assert "authenticated" not in answer.body["status"]


async def test_a_served_api_is_reached_with_its_token_only() -> None:
    async with serve(ApiServer(), token="t") as at, aiohttp.ClientSession() as session:
        async with session.get(f"{at.url}/version") as answer:
            assert answer.status == 401
        async with session.get(f"{at.url}/version", headers={"authorization": "Bearer t"}) as answer:
            assert answer.status == 200
        config = at.kubeconfig(namespace="n")
    assert config["users"] == [{"name": "kaito", "user": {"token": "t"}}]
    assert config["contexts"][0]["context"]["namespace"] == "n"
