"""A small OpenAI-compatible server that stands in for vLLM: tokens are characters, answers are the prompt in
capitals.

Used in process by `test_vllm_proxy.py` and as a program (`vllm serve MODEL --port=… …`) by
`test_vllm_process.py`.
"""
# ruff: noqa: T201 - a program that fails like vLLM, in words

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

CONTEXT = 64


class StubEngine:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.cancelled = 0
        self.hold: asyncio.Event | None = None
        self.has_chat_template = False
        self.adapters: dict[str, str] = {}
        """Loaded adapters with their directories."""
        self.broken: set[str] = set()
        """Adapters that cannot be loaded."""

    def application(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/health", self._ok),
                web.get("/v1/models", self._models),
                web.post("/v1/load_lora_adapter", self._load_adapter),
                web.post("/v1/unload_lora_adapter", self._unload_adapter),
                web.get("/version", self._version),
                web.get("/metrics", self._metrics),
                web.post("/v1/completions", self._completions),
                web.post("/v1/chat/completions", self._chat),
                web.post("/tokenize", self._tokenize),
                web.post("/detokenize", self._detokenize),
            ]
        )
        return app

    async def _ok(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name} for name in ("phi", *self.adapters)]})

    async def _load_adapter(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["lora_name"] in self.broken:
            return web.json_response({"error": {"message": "not an adapter"}}, status=400)
        self.adapters[body["lora_name"]] = body["lora_path"]
        return web.Response(text=f"Success: LoRA adapter '{body['lora_name']}' added successfully.")

    async def _unload_adapter(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.adapters.pop(body["lora_name"], None) is None:
            return web.json_response({"error": {"message": "no such adapter"}}, status=404)
        return web.Response(text="Success: removed")

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "9.9"})

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(text="vllm:num_requests_running 0\n")

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        if "messages" in body and not self.has_chat_template and body["messages"][0]["content"] == "x":
            message = "default chat template is no longer allowed, so you must provide a chat template"
            return web.json_response({"error": {"message": message}}, status=400)
        text = body.get("prompt") or "".join(message["content"] for message in body["messages"])
        return web.json_response({"tokens": [ord(c) for c in text], "max_model_len": CONTEXT})

    async def _detokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        return web.json_response({"prompt": "".join(map(chr, body["tokens"]))})

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await self._receive(request)
        prompt = body["prompt"]
        text = (prompt if isinstance(prompt, str) else "".join(map(chr, prompt))).upper()[: body["max_tokens"]]
        if len(prompt) + body["max_tokens"] > 4096:
            return web.json_response({"error": {"message": "context exceeded"}}, status=400)
        if body.get("stream"):
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            for character in text:
                event = {"choices": [{"index": 0, "text": character}]}
                await response.write(f"data: {json.dumps(event)}\n\n".encode())
            await response.write(b"data: [DONE]\n\n")
            return response
        return web.json_response({"choices": [{"index": i, "text": text} for i in range(body.get("n", 1))]})

    async def _chat(self, request: web.Request) -> web.Response:
        body = await self._receive(request)
        content = body["messages"][-1]["content"].upper()
        return web.json_response({"choices": [{"message": {"role": "assistant", "content": content}}]})

    async def _receive(self, request: web.Request) -> dict[str, Any]:
        body: dict[str, Any] = await request.json()
        self.bodies.append(body)
        if self.hold:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return body


def main() -> None:
    """`serve MODEL --host=H --port=P --max-model-len=N …`: like vLLM, ends with its message when the cache
    does not fit."""
    words = [word.removeprefix("--").partition("=") for word in sys.argv[3:]]
    flags = {name: value for name, _, value in words}
    log = Path(__file__).with_name("starts.log") if "log" not in flags else Path(flags["log"])
    with log.open("a") as file:
        file.write(json.dumps(flags) + "\n")
    length = int(flags.get("max-model-len") or 10_000)
    if length > 3000:
        print("ValueError: To serve at least one request, more KV cache memory is needed.", file=sys.stderr)
        print("Based on the available memory, the estimated maximum model length is 2999.", file=sys.stderr)
        raise SystemExit(1)
    if "die" in flags:
        raise SystemExit(7)
    if "headless" in flags:
        signal.sigwait({signal.SIGTERM})
        return
    web.run_app(StubEngine().application(), host=flags["host"], port=int(flags["port"]), print=None)


if __name__ == "__main__":
    main()
