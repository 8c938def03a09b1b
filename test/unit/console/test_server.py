"""The server over loopback: session, rows, details, and the checks of requests."""

import re

import aiohttp
import pytest

from kaito.console.settings import ConsoleSettings
from kaito.runtime.errors import ConfigurationError
from test.unit.console.conftest import Scene, ready, workspace


async def test_the_session_names_cluster_user_and_rights(scene: Scene) -> None:
    session = await scene.get("/api/session")
    assert (session["cluster"], session["user"], session["mode"]) == ("test", "tester", "kubeconfig")
    assert session["writes"] is True
    assert session["trouble"] == []
    assert session["links"] == {"trace": "", "dashboard": "", "alerts": ""}


async def test_a_workspace_becomes_a_row_and_a_detail(scene: Scene) -> None:
    context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    made = await scene.client.create(workspace().with_metadata(annotations={"kaito.sh/traceparent": context}))
    await scene.client.update_status(made.evolve(status=type(made.status).model_validate(ready())))
    row = await scene.until("phi")
    assert (row["namespace"], row["model"], row["task"]) == ("default", "phi-3-mini-4k-instruct", "inference")
    detail = await scene.get("/api/workspaces/default/phi")
    assert detail["uid"] == made.uid
    assert [link["kind"] for link in detail["chain"]][:1] == ["Workspace"]
    assert "instanceType: Standard_NC24ads_A100_v4" in detail["yaml"]
    assert "status" not in detail["yaml"]
    assert detail["traceId"] == context.split("-")[1]
    assert "traceparent" not in detail["yaml"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"trace_url": "https://jaeger.example.com/trace/"}, "must contain {trace_id}"),
        ({"trace_url": "javascript:alert('{trace_id}')"}, "https://"),
        ({"dashboard_url": "ftp://grafana"}, "--dashboard-url=ftp://grafana"),
    ],
)
def test_wrong_addresses_of_links_are_refused(options: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(problem)):
        ConsoleSettings(**options)  # type: ignore[arg-type]  # only texts


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example:80"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403),
        ({}, 200),
    ],
)
async def test_requests_of_other_sites_are_refused(scene: Scene, headers: dict[str, str], status: int) -> None:
    async with scene.browser.get(f"{scene.url}/api/session", headers=headers) as answer:
        assert answer.status == status
        assert "'none'" in answer.headers["Content-Security-Policy"]


async def test_the_cookie_of_another_console_is_refused(scene: Scene) -> None:
    for cookies in ({}, {f"kaito-console-{scene.console.port}": "guess"}, {"kaito-console-1": "other"}):
        async with aiohttp.ClientSession(cookies=cookies, cookie_jar=aiohttp.CookieJar(unsafe=True)) as stranger:
            async with stranger.get(f"{scene.url}/api/session") as answer:
                assert answer.status == 401
                assert "link" in (await answer.json())["error"]
            async with stranger.get(f"{scene.url}/?token=guess") as answer:
                assert answer.status == 401
            async with stranger.get(f"{scene.url}/healthz") as answer:
                assert answer.status == 200
