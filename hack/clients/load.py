"""Runs guidellm and `vllm bench serve` against a server, and checks what they report about each request.

Rates and latencies are not checked: they depend on the machine.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hack.clients.environments import guidellm, vllm
from hack.clients.servers import Server, environment

REQUESTS: Final = 8
INPUT_TOKENS: Final = 32
OUTPUT_TOKENS: Final = 8
ROUTES: Final = {"openai-chat": "/v1/chat/completions", "openai": "/v1/completions"}
"""Route of each backend of `vllm bench serve`; guidellm has the same ones."""


def measure(server: Server, directory: Path) -> list[str]:
    """Returns what is wrong in the reports of both clients."""
    wrong = [
        f"vllm bench serve, {backend}: {text}" for backend in ROUTES for text in _bench(server, directory, backend)
    ]
    return wrong + [
        f"guidellm, {path}: {text}" for path in ROUTES.values() for text in _guidellm(server, directory, path)
    ]


def _bench(server: Server, directory: Path, backend: str) -> Iterator[str]:
    result = directory / f"bench-{backend}.json"
    _run(
        directory / f"bench-{backend}.log", str(vllm()), "bench", "serve", f"--backend={backend}",
        f"--endpoint={ROUTES[backend]}", f"--base-url={server.url}", f"--model={server.model}",
        f"--tokenizer={server.model}", "--dataset-name=random", f"--num-prompts={REQUESTS}",
        f"--random-input-len={INPUT_TOKENS}", f"--random-output-len={OUTPUT_TOKENS}", "--max-concurrency=2",
        "--ignore-eos", "--save-result", "--save-detailed", f"--result-dir={directory}",
        f"--result-filename={result.name}",
    )  # fmt: skip
    found = json.loads(result.read_text())
    yield from _unequal("completed", found["completed"], REQUESTS)
    yield from _unequal("failed", found["failed"], 0)
    yield from _unequal("output tokens", found["output_lens"], [OUTPUT_TOKENS] * REQUESTS)
    if backend == "openai":  # the chat template adds tokens
        yield from _unequal("input tokens", found["input_lens"], [INPUT_TOKENS] * REQUESTS)
    if not all(seconds > 0 for seconds in found["ttfts"]):
        yield "a request has no time to its first token"
    print(f"vllm bench serve, {backend}: {found['output_throughput']:.1f} tokens/s, "
          f"first token after {found['median_ttft_ms']:.0f} ms")  # fmt: skip


def _guidellm(server: Server, directory: Path, path: str) -> Iterator[str]:
    result = directory / f"guidellm-{Path(path).parent.name}.json"
    _run(
        result.with_suffix(".log"), str(guidellm()), "run",
        "--backend", f"kind=openai_http,target={server.url},model={server.model},request_format={path}",
        "--profile", "kind=concurrent,streams=2", "--constraint", f"kind=max_requests,count={REQUESTS}",
        "--tokenizer", f"kind=hf_auto,model={server.model}",
        "--data", f"kind=synthetic_text,prompt_tokens={INPUT_TOKENS},output_tokens={OUTPUT_TOKENS}",
        "--output", f"kind=json,path={result}", "--disable-console",
    )  # fmt: skip
    found = json.loads(result.read_text())["benchmarks"][0]
    totals = found["metrics"]["request_totals"]
    yield from _unequal("successful", totals["successful"], REQUESTS)
    yield from _unequal("errored", totals["errored"], 0)
    requests: list[dict[str, Any]] = found["requests"]["successful"]
    yield from _unequal("output tokens", [request["output_tokens"] for request in requests], [OUTPUT_TOKENS] * REQUESTS)
    print(f"guidellm, {path}: {found['metrics']['output_tokens_per_second']['successful']['mean']:.1f} tokens/s")


def _unequal(name: str, found: object, expected: object) -> Iterator[str]:
    if found != expected:
        yield f"{name}: {found} instead of {expected}"


def _run(log: Path, *command: str) -> None:
    with log.open("wb") as output:
        subprocess.run(["nice", "-n", "5", *command], env=environment(), stdout=output, stderr=output, check=True)
