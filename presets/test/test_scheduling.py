"""Queue, batch, abandonment, failures and draining, over HTTP and without a torch in sight."""

import asyncio
from typing import Any

import pytest
from fake_model import FakeModel
from running_server import RunningServer, Serve


def chat(server: RunningServer, prompt: str, **body: object) -> "asyncio.Task[tuple[int, Any]]":
    return asyncio.create_task(  # noqa: TID251 - every caller awaits it
        server.post("/chat", {"prompt": prompt, "return_full_text": False, **body})
    )


async def test_requests_share_the_batch(serve: Serve) -> None:
    model = FakeModel()
    server = await serve(model, batch=4)
    model.hold()
    tasks = [chat(server, f"prompt {index}") for index in range(4)]
    await server.until(lambda: len(model.begun) >= 1)
    model.allow(1)
    await server.until(lambda: len(model.begun) == 4)
    model.release()
    assert [(await task)[1] for task in tasks] == [{"Result": f"PROMPT {index}"} for index in range(4)]
    assert max(model.batch_sizes) == 4


async def test_a_row_joins_while_others_are_under_way_and_leaves_before_them(serve: Serve) -> None:
    model = FakeModel(reply=lambda prompt: "long " * 20 if prompt == "long" else prompt)
    server = await serve(model)
    model.hold()
    long = chat(server, "long")
    await server.until(lambda: "long" in model.begun)
    short = chat(server, "hi")
    await server.queued(1)
    model.allow(5)
    assert await short == (200, {"Result": "hi"})
    assert not long.done()
    model.release()
    assert (await long)[0] == 200


async def test_a_full_queue_is_429_with_retry_after_and_empties_again(serve: Serve) -> None:
    model = FakeModel()
    server = await serve(model, batch=1, queue=2)
    model.hold()
    first = chat(server, "one")
    await server.until(lambda: len(model.begun) == 1)
    waiting = [chat(server, "two"), chat(server, "three")]
    await server.queued(2)
    async with server.session.post(server.url + "/chat", json={"prompt": "four"}) as response:
        assert response.status == 429
        assert int(response.headers["Retry-After"]) >= 1
        assert "queue is full" in (await response.json())["detail"]
    async with server.session.post(server.url + "/v1/completions", json={"prompt": "x"}) as response:
        assert response.status == 429
        assert (await response.json())["error"]["code"] == "rate_limit_exceeded"
    model.release()
    assert [(await task)[0] for task in (first, *waiting)] == [200, 200, 200]
    assert (await server.post("/chat", {"prompt": "five"}))[0] == 200


async def test_rows_wait_for_memory(serve: Serve) -> None:
    model = FakeModel(room=2)
    server = await serve(model, batch=8)
    tasks = [chat(server, f"p{index}") for index in range(6)]
    assert [(await task)[0] for task in tasks] == [200] * 6
    assert max(model.batch_sizes) <= 2


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_stops_its_generation(serve: Serve, stream: bool) -> None:
    model = FakeModel(reply=lambda _: "x" * 900)
    server = await serve(model)
    model.hold()
    body = {"messages": [{"role": "user", "content": "hello"}], "stream": stream, "max_tokens": 900}

    async def ask() -> None:
        async with server.session.post(server.url + "/v1/chat/completions", json=body) as response:
            await response.text()

    asking = asyncio.create_task(ask())  # noqa: TID251 - awaited below
    await server.until(lambda: bool(model.begun))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await server.until(lambda: model.seen[0].cancelled)
    model.allow(1)
    await server.until(lambda: not server.scheduler.busy)
    assert len(model.seen[0].produced) < 10
    assert (await server.get("/health"))[0] == 200


async def test_a_client_that_does_not_read_delays_nobody(serve: Serve) -> None:
    model = FakeModel(reply=lambda prompt: "y" * 900 if prompt == "slow" else prompt)
    server = await serve(model)
    body = {"messages": [{"role": "user", "content": "slow"}], "stream": True}
    async with server.session.post(server.url + "/v1/chat/completions", json=body) as response:
        assert response.status == 200  # and then the body is not read
        assert await server.post("/chat", {"prompt": "quick", "return_full_text": False}) == (
            200,
            {"Result": "quick"},
        )


async def test_a_prompt_that_fails_does_not_touch_the_rows_under_way(serve: Serve) -> None:
    model = FakeModel()
    server = await serve(model)
    model.hold()
    fine = chat(server, "fine")
    await server.until(lambda: "fine" in model.begun)
    broken = chat(server, "explode")
    await server.queued(1)
    model.release()
    assert await broken == (500, {"detail": "generation failed: RuntimeError: scripted failure"})
    assert await fine == (200, {"Result": "FINE"})
    assert model.resets == 0


async def test_a_failing_step_fails_its_rows_and_the_server_goes_on(serve: Serve) -> None:
    model = FakeModel()
    server = await serve(model)
    model.fail_next_step = True
    assert await server.post("/chat", {"prompt": "abc"}) == (
        500,
        {"detail": "generation failed: RuntimeError: scripted failure"},
    )
    assert model.resets == 1
    assert (await server.post("/chat", {"prompt": "abc"}))[0] == 200


async def test_out_of_memory_is_an_error_with_a_remedy(serve: Serve) -> None:
    server = await serve()
    status, body = await server.post("/chat", {"prompt": "out of memory"})
    assert status == 500
    assert "out of memory" in str(body)
    assert (await server.post("/chat", {"prompt": "abc"}))[0] == 200


async def test_a_row_that_cannot_share_a_batch_runs_alone(serve: Serve) -> None:
    model = FakeModel()
    server = await serve(model)
    model.hold()
    shared = chat(server, "shared")
    await server.until(lambda: "shared" in model.begun)
    alone = chat(server, "beams", generate_kwargs={"num_beams": 2})
    behind = chat(server, "behind")
    model.release()
    assert await shared == (200, {"Result": "SHARED"})
    assert await alone == (200, {"Result": "BEAMSB"})
    assert await behind == (200, {"Result": "BEHIND"})
    assert (await server.post("/chat", {"prompt": "explode", "generate_kwargs": {"num_beams": 2}}))[0] == 500
    assert (await server.post("/chat", {"prompt": "abc"}))[0] == 200


async def test_draining_finishes_what_was_accepted_and_refuses_the_rest(serve: Serve) -> None:
    model = FakeModel()
    server = await serve(model)
    model.hold()
    accepted = chat(server, "accepted")
    await server.until(lambda: "accepted" in model.begun)
    draining = asyncio.create_task(server.lifecycle.drain(10))  # noqa: TID251 - awaited below
    await asyncio.sleep(0)
    assert await server.get("/healthz") == (503, {"status": "Draining"})
    async with server.session.post(server.url + "/chat", json={"prompt": "late"}) as response:
        assert response.status == 503
    model.release()
    assert await accepted == (200, {"Result": "ACCEPTED"})
    assert await draining


async def test_draining_ends_at_its_deadline(serve: Serve) -> None:
    model = FakeModel(reply=lambda _: "x" * 900)
    server = await serve(model)
    model.hold()
    accepted = chat(server, "stuck")
    await server.until(lambda: "stuck" in model.begun)
    draining = asyncio.create_task(server.lifecycle.drain(0))  # noqa: TID251 - awaited below
    await asyncio.sleep(0.05)
    model.release()
    assert not await draining
    assert (await accepted)[0] == 503
