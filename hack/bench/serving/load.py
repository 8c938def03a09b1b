"""Runs N clients against one server in a closed loop and counts the responses. Used by `bench.py`."""

import asyncio
import json
import time
from dataclasses import dataclass, field

import aiohttp


@dataclass
class Load:
    """The responses that the clients received."""

    clients: int
    tokens: int = 0
    seconds: float = 0.0
    errors: int = 0
    first_tokens: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    """Times between two events of a stream."""


async def chat_load(url: str, *, clients: int, prompts: list[str], tokens: int, seconds: float) -> Load:
    """Sends `POST /chat` and reads complete responses of exactly `tokens` tokens."""
    load = Load(clients)
    options = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
    stop_at = time.perf_counter() + seconds

    async def client(session: aiohttp.ClientSession, number: int) -> None:
        turn = 0
        while time.perf_counter() < stop_at:
            body = {"prompt": prompts[(number + turn) % len(prompts)], "generate_kwargs": options}
            turn += 1
            started = time.perf_counter()
            async with session.post(url + "/chat", json=body) as response:
                await response.read()
                load.errors += response.status != 200
            load.tokens += tokens
            load.answers.append(time.perf_counter() - started)

    await _run(load, client)
    return load


async def stream_load(url: str, *, clients: int, prompts: list[str], tokens: int, seconds: float) -> Load:
    """Sends streamed `POST /v1/chat/completions`; the first event arrives with the first token."""
    load = Load(clients)
    stop_at = time.perf_counter() + seconds

    async def client(session: aiohttp.ClientSession, number: int) -> None:
        turn = 0
        while time.perf_counter() < stop_at:
            body = {
                "messages": [{"role": "user", "content": prompts[(number + turn) % len(prompts)]}],
                "max_tokens": tokens,
                "min_tokens": tokens,
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            turn += 1
            started = time.perf_counter()
            first = None
            async with session.post(url + "/v1/chat/completions", json=body) as response:
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        first = first or time.perf_counter()
                        event = json.loads(line[6:])
                        load.tokens += (event.get("usage") or {}).get("completion_tokens", 0)
                load.errors += response.status != 200
            load.answers.append(time.perf_counter() - started)
            load.first_tokens.append((first or time.perf_counter()) - started)

    await _run(load, client)
    return load


async def fixed_load(url: str, *, clients: int, bodies: list[dict]) -> Load:
    """Sends these streamed chat requests, each once; every client takes the next one when it has its answer."""
    load = Load(clients)
    waiting = list(reversed(bodies))

    async def client(session: aiohttp.ClientSession, _: int) -> None:
        while waiting:
            body = waiting.pop()
            started = last = time.perf_counter()
            first = None
            async with session.post(url + "/v1/chat/completions", json=body) as response:
                async for line in response.content:
                    if not line.startswith(b"data: {"):
                        continue
                    event = json.loads(line[6:])
                    now = time.perf_counter()
                    if any(choice["delta"].get("content") for choice in event["choices"]):
                        if first is not None:
                            load.gaps.append(now - last)
                        first, last = first or now, now
                    load.tokens += (event.get("usage") or {}).get("completion_tokens", 0)
                load.errors += response.status != 200
            load.answers.append(time.perf_counter() - started)
            load.first_tokens.append((first or time.perf_counter()) - started)

    await _run(load, client)
    return load


async def _run(load: Load, client) -> None:
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(load.clients):
                group.create_task(client(session, number))
        load.seconds = time.perf_counter() - started
