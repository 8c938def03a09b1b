"""Queue, batch, abandonment, failures and draining, over HTTP and without a torch in sight."""

import asyncio
from typing import Any

import pytest
from fake_model import FakeModel
from kaito_presets.inference import scheduler
from running_server import RunningServer, Serve

Chat = asyncio.Task[tuple[int, Any]]


def chat(server: RunningServer, prompt: str, **body: object) -> Chat:
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


async def test_row_is_added_to_a_running_batch_and_removed_before_the_others(serve: Serve) -> None:
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


async def test_long_prompt_does_not_stop_running_rows(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its prompt is computed in slices, with a step of the batch after each."""
    monkeypatch.setattr(scheduler, "MAX_SLICE_TOKENS", 50)
    monkeypatch.setattr(scheduler, "FIRST_SLICE_TOKENS", 50)
    model = FakeModel(reply=lambda prompt: "x" * 40 if prompt == "running" else "done")
    server = await serve(model)
    model.hold()
    running = chat(server, "running")
    await server.until(lambda: "running" in model.begun)
    long = chat(server, "p" * 500)
    await server.queued(1)
    model.calls.clear()
    model.release()
    assert (await running, await long) == ((200, {"Result": "x" * 40}), (200, {"Result": "done"}))
    assert model.calls.count("slice") == 10
    first = model.calls.index("slice")
    assert model.calls[first : first + 20] == ["slice", "step"] * 10


async def test_short_prompt_does_not_wait_for_a_long_one(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second slice is for the shortest prompt; the long one gets the others."""
    monkeypatch.setattr(scheduler, "MAX_SLICE_TOKENS", 50)
    monkeypatch.setattr(scheduler, "FIRST_SLICE_TOKENS", 50)
    model = FakeModel(reply=lambda prompt: "x" * 60 if prompt == "first" else prompt[:1])
    server = await serve(model)
    model.hold()
    first = chat(server, "first")
    await server.until(lambda: "first" in model.begun)
    long, short = chat(server, "l" * 900), chat(server, "s" * 60)
    await server.queued(2)
    model.allow(6)
    assert await short == (200, {"Result": "s"})
    assert not long.done()
    model.release()
    assert [(await task)[0] for task in (first, long)] == [200, 200]


async def test_canceled_row_leaves_in_the_middle_of_its_prompt(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "MAX_SLICE_TOKENS", 50)
    monkeypatch.setattr(scheduler, "FIRST_SLICE_TOKENS", 50)
    model = FakeModel(reply=lambda _: "x" * 100)
    server = await serve(model)
    model.hold()
    running = chat(server, "running")
    await server.until(lambda: "running" in model.begun)
    long = chat(server, "l" * 900)
    await server.queued(1)
    model.allow(3)
    await server.until(lambda: len(model.seen) == 2)
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long
    await server.until(lambda: model.seen[1].cancelled)
    model.release()
    assert (await running)[0] == 200
    await server.until(lambda: not server.scheduler.is_busy)
    assert model.seen[1].prompt_tokens_read < 900
    assert model.seen[1].output_tokens == []


async def full_server(serve: Serve) -> tuple[FakeModel, RunningServer, list[Chat]]:
    """Starts a server on which one request runs and two wait, as many as it accepts."""
    model = FakeModel()
    server = await serve(model, batch=1, queue=2)
    model.hold()
    first = chat(server, "one")
    await server.until(lambda: len(model.begun) == 1)
    waiting = [chat(server, "two"), chat(server, "three")]
    await server.queued(2)
    return model, server, [first, *waiting]


async def test_full_queue_is_a_429_with_retry_after(serve: Serve) -> None:
    model, server, sent = await full_server(serve)
    async with server.session.post(server.url + "/chat", json={"prompt": "four"}) as response:
        assert response.status == 429
        assert int(response.headers["Retry-After"]) >= 1
        assert "queue is full" in (await response.json())["detail"]
    async with server.session.post(server.url + "/v1/completions", json={"prompt": "x"}) as response:
        assert response.status == 429
        assert (await response.json())["error"]["code"] == "rate_limit_exceeded"
    model.release()
    assert [(await task)[0] for task in sent] == [200, 200, 200]
    assert (await server.post("/chat", {"prompt": "five"}))[0] == 200


async def test_canceled_rows_of_the_queue_leave_their_places_at_once(serve: Serve) -> None:
    """Clients that time out and send again are not rejected because of what they have canceled."""
    model, server, (first, second, third) = await full_server(serve)
    third.cancel()
    with pytest.raises(asyncio.CancelledError):
        await third
    await server.until(lambda: sum(not row.cancelled for row in server.scheduler.waiting_rows) == 1)
    fourth = chat(server, "four")
    await server.until(lambda: [row.prompt for row in server.scheduler.waiting_rows][-1] == model.encode("four"))
    assert (await server.post("/chat", {"prompt": "five"}))[0] == 429
    model.allow(1)
    await server.queued(2)
    assert len(server.scheduler.waiting_rows) == 2, "also behind a row that waits while the batch is full"
    model.release()
    assert [(await task)[0] for task in (first, second, fourth)] == [200] * 3


async def test_rows_wait_until_the_memory_suffices(serve: Serve) -> None:
    model = FakeModel(room=2)
    server = await serve(model, batch=8)
    tasks = [chat(server, f"p{index}") for index in range(6)]
    assert [(await task)[0] for task in tasks] == [200] * 6
    assert max(model.batch_sizes) <= 2


@pytest.mark.parametrize("stream", [False, True])
async def test_disconnected_client_cancels_its_generation(serve: Serve, stream: bool) -> None:
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
    await server.until(lambda: not server.scheduler.is_busy)
    assert len(model.seen[0].output_tokens) < 10
    assert (await server.get("/health"))[0] == 200


async def test_slow_reader_does_not_delay_other_requests(serve: Serve) -> None:
    model = FakeModel(reply=lambda prompt: "y" * 900 if prompt == "slow" else prompt)
    server = await serve(model)
    body = {"messages": [{"role": "user", "content": "slow"}], "stream": True}
    async with server.session.post(server.url + "/v1/chat/completions", json=body) as response:
        assert response.status == 200  # and then the body is not read
        assert await server.post("/chat", {"prompt": "quick", "return_full_text": False}) == (
            200,
            {"Result": "quick"},
        )


async def test_failed_prefill_does_not_affect_running_rows(serve: Serve) -> None:
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


async def test_failed_step_fails_its_rows_and_the_server_continues(serve: Serve) -> None:
    model = FakeModel()
    server = await serve(model)
    model.fail_next_step = True
    assert await server.post("/chat", {"prompt": "abc"}) == (
        500,
        {"detail": "generation failed: RuntimeError: scripted failure"},
    )
    assert model.resets == 1
    assert (await server.post("/chat", {"prompt": "abc"}))[0] == 200


async def test_failed_step_does_not_affect_rows_whose_prompts_are_being_computed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "MAX_SLICE_TOKENS", 50)
    monkeypatch.setattr(scheduler, "FIRST_SLICE_TOKENS", 50)
    model = FakeModel(reply=lambda prompt: "x" * 60 if prompt == "running" else "done")
    server = await serve(model)
    model.hold()
    running = chat(server, "running")
    await server.until(lambda: "running" in model.begun)
    long = chat(server, "p" * 500)
    await server.queued(1)
    model.allow(2)
    await server.until(lambda: len(model.seen) == 2)
    model.fail_next_step = True
    model.release()
    assert (await running)[0] == 500
    assert await long == (200, {"Result": "done"})


async def test_out_of_memory_is_an_error_with_a_remedy(serve: Serve) -> None:
    server = await serve()
    status, body = await server.post("/chat", {"prompt": "out of memory"})
    assert status == 500
    assert "out of memory" in str(body)
    assert (await server.post("/chat", {"prompt": "abc"}))[0] == 200


async def test_unbatched_row_runs_outside_the_batch(serve: Serve) -> None:
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
    value = server.metrics.registry.get_sample_value
    assert value("kaito_generation_unbatched_total", {"option": "num_beams"}) == 2


async def test_unbatched_row_alternates_with_the_batch(serve: Serve) -> None:
    """The batch keeps its pace, a token for each token of the row beside it."""
    model = FakeModel(reply=lambda prompt: "x" * (300 if prompt == "beams" else 20))
    server = await serve(model)
    model.hold()
    beams = chat(server, "beams", generate_kwargs={"num_beams": 2, "max_new_tokens": 300})
    await server.until(lambda: len(model.alone_runs) == 1)
    shared = chat(server, "shared")
    await server.queued(1)
    model.allow(60)
    assert await shared == (200, {"Result": "x" * 20})
    assert 15 <= model.alone_runs[0].turns <= 45
    assert not beams.done()
    model.release()
    assert await beams == (200, {"Result": "x" * 300 + "x"})


async def test_unbatched_row_ends_with_its_client_or_its_error(serve: Serve) -> None:
    """Abandoned or failed, it leaves nothing behind; too large, it is refused before it is queued."""
    model = FakeModel(reply=lambda _: "x" * 300)
    server = await serve(model)
    model.hold()
    body = {"prompt": "beams", "generate_kwargs": {"num_beams": 2, "max_new_tokens": 300}}
    beams = asyncio.create_task(server.post("/chat", body))  # noqa: TID251 - awaited below
    await server.until(lambda: len(model.alone_runs) == 1)
    beams.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beams
    model.release()
    await server.until(lambda: not server.scheduler.is_busy)
    assert model.alone_runs[0].cancelled
    status, answer = await server.post(
        "/chat", {"prompt": "x", "generate_kwargs": {"num_beams": 2, "max_new_tokens": 950}}
    )
    assert (status, answer) == (400, {"detail": "too many tokens side by side"})
    assert (await server.post("/chat", {"prompt": "abc", "generate_kwargs": {"max_new_tokens": 2}}))[0] == 200


async def test_canceled_unbatched_row_leaves_its_place_at_once(serve: Serve) -> None:
    model = FakeModel(reply=lambda _: "x" * 300)
    server = await serve(model, batch=1, queue=1)
    model.hold()
    beams = chat(server, "beams", generate_kwargs={"num_beams": 2, "max_new_tokens": 300})
    await server.until(lambda: len(model.alone_runs) == 1)
    waiting = chat(server, "two")
    await server.until(lambda: len(server.scheduler.waiting_rows) == 1)
    assert (await server.post("/chat", {"prompt": "three"}))[0] == 429
    beams.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beams
    await server.until(lambda: model.unbatched_rows[0].cancelled)
    later = chat(server, "three")
    await server.until(lambda: [row.prompt for row in server.scheduler.waiting_rows][-1:] == [model.encode("three")])
    model.release()
    assert [(await task)[0] for task in (waiting, later)] == [200, 200]


async def test_log_probabilities_of_an_unbatched_row_are_rejected(serve: Serve) -> None:
    """An empty list of log probabilities is not an answer."""
    model = FakeModel()
    server = await serve(model)
    model.options_of_every_request = {"num_beams": 2}
    status, answer = await server.post("/v1/completions", {"prompt": "x", "logprobs": 1})
    assert status == 400
    assert "not available with num_beams" in answer["error"]["message"]


async def test_bad_prompt_does_not_fail_rows_of_the_same_prefill(serve: Serve) -> None:
    """Rows of several requests join in one call; each is to blame for its own failure only."""
    model = FakeModel()
    server = await serve(model)
    model.hold()
    first = chat(server, "first")
    await server.until(lambda: "first" in model.begun)
    together = [chat(server, prompt) for prompt in ("fine", "explode", "also fine")]
    await server.queued(3)
    model.release()
    assert [(await task)[0] for task in together] == [200, 500, 200]
    assert (await first)[0] == 200


async def test_row_that_fails_in_a_step_is_removed_alone(serve: Serve) -> None:
    """An error of one row in a shared step is that row's answer."""
    model = FakeModel()
    model.fail_rows_of = "broken"
    server = await serve(model)
    answers = await asyncio.gather(chat(server, "broken"), chat(server, "fine"))
    assert [*answers] == [(400, {"detail": "scripted refusal"}), (200, {"Result": "FINE"})]
    assert model.resets == 0


async def test_scheduler_survives_exceptions_of_the_model(serve: Serve) -> None:
    """An exception outside of a step ends requests, not the thread; one that persists ends readiness."""
    model = FakeModel()
    server = await serve(model)
    model.fail_next_leave = True
    assert (await server.post("/chat", {"prompt": "abc"}))[0] == 500
    assert (await server.post("/chat", {"prompt": "abc"}))[0] == 200
    assert await server.get("/health") == (200, {"status": "Healthy"})
    model.fail_next_step = model.fail_reset = True
    assert (await server.post("/chat", {"prompt": "abc"}))[0] == 500
    assert await server.get("/health") == (503, {"status": "Unhealthy"})
    assert (await server.post("/chat", {"prompt": "abc"}))[0] == 503


@pytest.mark.parametrize("stream", [False, True])
async def test_more_prompts_than_an_idle_server_accepts_are_a_400(serve: Serve, stream: bool) -> None:
    """No 429 that could never end, and nothing is half started."""
    model = FakeModel()
    server = await serve(model, batch=2, queue=3)
    body = {"prompt": ["a"] * 3, "n": 2, "max_tokens": 4, "stream": stream}
    status, answer = await server.post("/v1/completions", body)
    assert status == 400
    assert "needs 6 sequences" in answer["error"]["message"]
    assert "more than the 5" in answer["error"]["message"]
    assert model.begun == []
    status, answer = await server.post("/v1/completions", {"prompt": [*"abcde"], "max_tokens": 4})
    assert status == 200
    assert [choice["text"] for choice in answer["choices"]] == [*"ABCDE"]


async def test_prompts_of_a_request_are_accepted_together_or_not_at_all(serve: Serve) -> None:
    """A request that does not fit now is a 429 of which no prompt has been read."""
    model = FakeModel()
    server = await serve(model, batch=1, queue=4)
    model.hold()
    first = chat(server, "first")
    await server.until(lambda: len(model.begun) == 1)
    waiting = chat(server, "second")
    await server.queued(1)
    status, _ = await server.post("/v1/completions", {"prompt": [*"abcd"]})
    assert status == 429
    model.release()
    assert [(await first)[0], (await waiting)[0]] == [200, 200]
    assert model.begun == ["first", "second"]


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
        assert int(response.headers["Retry-After"]) >= 1
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
