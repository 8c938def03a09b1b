"""Health, version, metrics."""

import asyncio

from fake_model import FakeModel
from kaito_presets.inference.service import GenerationService
from running_server import Serve


async def test_health_is_503_before_the_model_is_loaded(serve: Serve) -> None:
    server = await serve(ready=False)
    for path in ("/health", "/healthz"):
        assert await server.get(path) == (503, {"status": "Loading"})
    assert await server.get("/") == (200, {"message": "Server is running"})
    status, body = await server.post("/chat", {"prompt": "x"})
    assert (status, body) == (503, {"detail": "the server is still loading its model"})
    status, body = await server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})
    assert status == 503
    assert body["error"]["code"] == "unavailable"
    server.lifecycle.set_ready(GenerationService(server.model, server.scheduler, server.metrics))
    for path in ("/health", "/healthz"):
        assert await server.get(path) == (200, {"status": "Healthy"})


async def test_version_names_the_engine_and_the_model(serve: Serve) -> None:
    server = await serve()
    status, body = await server.get("/version")
    assert status == 200
    assert set(body) == {"version", "engine", "engine_version", "model"}
    assert (body["engine"], body["model"]) == ("fake", "fake")


async def test_prometheus_metrics_count_requests_tokens_and_times(serve: Serve) -> None:
    server = await serve()
    await server.post("/chat", {"prompt": "abc"})
    await server.post("/chat", {"prompt": ""})
    async with server.session.get(server.url + "/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = await response.text()
    for line in (
        'kaito_http_requests_total{code="200",route="/chat"} 1.0',
        'kaito_http_requests_total{code="400",route="/chat"} 1.0',
        "kaito_prompt_tokens_total 3.0",
        "kaito_generation_tokens_total 4.0",
        "kaito_time_to_first_token_seconds_count 1.0",
        "kaito_generation_tokens_per_second_count 1.0",
        "kaito_generation_queue_length 0.0",
    ):
        assert line in text


async def test_the_last_request_has_a_time(serve: Serve) -> None:
    """`kaito cost` finds idle Workspaces by it; reads of metrics and health do not count."""
    server = await serve()

    async def last() -> float:
        async with server.session.get(server.url + "/metrics") as response:
            text = await response.text()
        return float(text.split("\nkaito_last_request_timestamp_seconds ")[1].split()[0])

    start = await last()
    assert start > 1.7e9
    assert await last() == start
    await server.post("/chat", {"prompt": "abc"})
    assert await last() > start


async def test_metrics_as_json_keep_upstreams_shape(serve: Serve) -> None:
    server = await serve()
    async with server.session.get(server.url + "/metrics", headers={"Accept": "application/json"}) as response:
        body = await response.json()
    assert set(body) == {"gpu_info", "cpu_info"}
    if body["cpu_info"]:
        assert set(body["cpu_info"]) == {"load_percentage", "physical_cores", "total_cores", "memory"}
        assert body["cpu_info"]["memory"]["total"].endswith(" GB")


async def test_health_answers_while_the_model_works(serve: Serve) -> None:
    model = FakeModel()
    server = await serve(model)
    model.hold()
    task = asyncio.create_task(server.post("/chat", {"prompt": "busy"}))  # noqa: TID251 - awaited below
    await server.until(lambda: bool(model.begun))
    assert (await server.get("/health"))[0] == 200
    async with server.session.get(server.url + "/metrics") as response:
        assert "kaito_generation_in_flight 1.0" in await response.text()
    model.release()
    assert (await task)[0] == 200
