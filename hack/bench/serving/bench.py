"""Measures the transformers server against its limit (`model.generate`) and a plain FastAPI + pipeline server.

    presets/.venv/bin/python hack/bench/serving/bench.py [--seconds 10] [--clients 1 8 32] [--output FILE.md]

Prints JSON on stdout; `--output` also writes the table. Runs on whatever device torch finds. Never run by the tests.
"""

import argparse
import asyncio
import datetime as dt
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import psutil
from load import Load, chat_load, stream_load

HERE = Path(__file__).parent
PYTHON = sys.executable
BIN = Path(PYTHON).parent
SUBJECT = "Tell me about Tuscany, its wine and its olive oil"
PROMPTS = [" ".join(SUBJECT.split()[: 3 + index % 8]) for index in range(32)]

# name: flags of kaito-tiny-model, tokens per answer
MODELS = {
    "tiny (0.8M)": (["--hidden_size=128", "--layers=4"], 64),
    "small (125M)": (["--hidden_size=768", "--layers=13", "--vocabulary_size=32064"], 32),
}
GPU_MODEL = {"large (1.3B)": (["--hidden_size=2048", "--layers=26", "--vocabulary_size=32064"], 128)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of one measurement")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--models", nargs="+", help="only models whose name begins so")
    parser.add_argument("--output", type=Path, help="write the table here")
    arguments = parser.parse_args()
    models = MODELS | (GPU_MODEL if has_gpu() else {})
    if arguments.models:
        models = {name: value for name, value in models.items() if name.startswith(tuple(arguments.models))}
    results = {}
    before = os.getloadavg()[0]
    for name, (flags, tokens) in models.items():
        with tempfile.TemporaryDirectory() as directory:
            subprocess.run([BIN / "kaito-tiny-model", directory, *flags], check=True, stdout=subprocess.DEVNULL)
            results[name] = measure(directory, tokens, arguments)
    document = {
        "machine": machine(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "results": results,
        "load": before,
    }
    print(json.dumps(document, indent=2))
    if arguments.output:
        arguments.output.write_text(table(document), encoding="utf-8")


def measure(directory: str, tokens: int, arguments: argparse.Namespace) -> dict:
    log(f"direct: {directory}")
    command = [PYTHON, HERE / "direct.py", "--model", directory, "--prompt", PROMPTS[0]]
    command += ["--tokens", str(tokens), "--seconds", str(arguments.seconds)]
    result = {"tokens_per_answer": tokens, "direct": direct(command), "ours": {}, "plain": {}}
    for kind in ("ours", "plain"):
        with server(kind, directory) as (url, process):
            # The plain server gets less time with many clients, because each of its responses takes long.
            asyncio.run(chat_load(url, clients=2, prompts=PROMPTS, tokens=tokens, seconds=1))
            for clients in arguments.clients:
                log(f"{kind}: {clients} clients")
                cpu = cpu_seconds(process.pid)
                load = asyncio.run(
                    chat_load(url, clients=clients, prompts=PROMPTS, tokens=tokens, seconds=arguments.seconds)
                )
                entry = numbers(load)
                entry["cpu_ms_per_token"] = 1000 * (cpu_seconds(process.pid) - cpu) / load.tokens
                if kind == "ours":
                    stream = asyncio.run(
                        stream_load(url, clients=clients, prompts=PROMPTS, tokens=tokens, seconds=arguments.seconds)
                    )
                    entry["stream_tokens_per_second"] = stream.tokens / stream.seconds
                    entry["first_token_p50"] = statistics.median(stream.first_tokens)
                    entry["errors"] += stream.errors
                entry["rss_mib"] = psutil.Process(process.pid).memory_info().rss / 2**20
                result[kind][clients] = entry
    # Measured before and after, and the better result is used, because other load on the machine lowers the limit.
    result["direct"] = max(result["direct"], direct(command), key=lambda found: found["tokens_per_second"])
    return result


def direct(command: list) -> dict:
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=quiet()).stdout
    return json.loads(output.splitlines()[-1])


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def numbers(load: Load) -> dict:
    return {
        "tokens_per_second": load.tokens / load.seconds,
        "answer_p50": statistics.median(load.answers),
        "answers": len(load.answers),
        "errors": load.errors,
    }


@contextmanager
def server(kind: str, directory: str):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if kind == "ours":
        command = [BIN / "kaito-inference", f"--pretrained_model_name_or_path={directory}", f"--port={port}"]
        command += ["--host=127.0.0.1", "--torch_dtype=" + ("bfloat16" if has_gpu() else "auto")]
    else:
        command = [PYTHON, HERE / "plain_server.py", "--model", directory, "--port", str(port)]
    process = subprocess.Popen(command, env=quiet(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                with urllib.request.urlopen(url + "/health", timeout=5) as response:
                    if response.status == 200:
                        break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
            time.sleep(0.2)
        yield url, process
    finally:
        process.terminate()
        process.wait(60)


INTRODUCTION = """\
# ModelContainer benchmarks

Written by `make bench-serving` (`hack/bench/serving/bench.py`). *Direct* is `model.generate` in a loop, without server,
with the better of one and all CPU threads and of two runs: the limit for one client. *Plain* is FastAPI around
`transformers.pipeline`, a common way to serve a model (`hack/bench/serving/plain_server.py`). *Ours* is
`kaito-inference`. Greedy decoding, random weights, answers of fixed length; closed loop: every client sends its next
request when it has the answer. CPU time per token depends less on other load of the machine than the rates do.
"""


def table(document: dict) -> str:
    lines = [INTRODUCTION]
    lines.append(
        f"Machine: {document['machine']}. Date: {document['date']}. Load average at the start: {document['load']:.1f}."
    )
    for name, result in document["results"].items():
        direct = result["direct"]
        lines += [
            "",
            f"## {name}: {direct['parameters']:,} parameters, {result['tokens_per_answer']} tokens per answer",
            "",
        ]
        rate, first = direct["tokens_per_second"], direct["first_token_seconds"] * 1000
        memory = direct["rss_mib"]
        lines.append(f"Direct: **{rate:.0f} tokens/s** with {direct['threads']} thread(s),")
        lines.append(
            f"first token after {first:.0f} ms, {direct['cpu_ms_per_token']:.2f} CPU ms a token, {memory:.0f} MiB."
        )
        lines += ["", HEAD, "|---" * HEAD.count(" | ") + "|---|"]
        for clients, ours in result["ours"].items():
            plain = result["plain"][clients]
            cells = [
                str(clients),
                f"{ours['tokens_per_second']:.0f}",
                f"{ours['tokens_per_second'] / rate:.0%}",
                f"{ours['stream_tokens_per_second']:.0f}",
                f"{ours['first_token_p50'] * 1000:.0f} ms",
                f"{ours['cpu_ms_per_token']:.2f}",
                f"{ours['rss_mib']:.0f} MiB",
                f"{plain['tokens_per_second']:.0f}",
                f"{plain['answer_p50'] * 1000:.0f} ms",
                f"{plain['cpu_ms_per_token']:.2f}",
                f"{plain['rss_mib']:.0f} MiB",
                f"{ours['tokens_per_second'] / plain['tokens_per_second']:.1f} x",
                f"{ours['errors']} / {plain['errors']}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


HEAD = (
    "| clients | ours, tokens/s | of direct | streamed, tokens/s | first token p50 | CPU ms/token | memory "
    "| plain, tokens/s | plain answer p50 | CPU ms/token | memory | ours / plain | errors |"
)


def machine() -> str:
    text = f"{os.cpu_count()} CPU cores ({platform.processor() or platform.machine()}), "
    text += f"{psutil.virtual_memory().total / 2**30:.0f} GiB, Python {platform.python_version()}"
    if has_gpu():
        import torch

        text += f", {torch.cuda.get_device_name(0)}"
    return text


def has_gpu() -> bool:
    return Path("/dev/nvidia0").exists()


def quiet() -> dict[str, str]:
    return os.environ | {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
