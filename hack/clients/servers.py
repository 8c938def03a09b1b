"""Runs the two servers on loopback: the transformers server of the presets, and vLLM for CPU."""

import contextlib
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hack.clients.environments import vllm
from hack.envtest.control_plane import free_port
from hack.models.smollm2 import model_directory
from hack.models.vllm_cpu import ROOT

PYTHON: Final = ROOT / "presets" / ".venv" / "bin" / "python"
START_SECONDS: Final = 1800
"""vLLM starts in one minute on an idle machine, and in a quarter of an hour on a busy one."""
STOP_SECONDS: Final = 120
CONTEXT_TOKENS: Final = 2048
SOURCES: Final = ("src", "config/src", "oci/src")
"""Directories of the packages of the presets."""
ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "GLOO_SOCKET_IFNAME": "lo",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers; `model` is the name that it serves."""

    name: str
    url: str
    model: str


def environment(**variables: str) -> dict[str, str]:
    """Returns the environment of servers and clients: one thread, no network."""
    return {**os.environ, **ENVIRONMENT, **variables}


def ours(port: int) -> list[str]:
    """Returns the command of the transformers server."""
    model = model_directory()
    return [
        str(PYTHON), "-m", "kaito_presets.inference.main",
        f"--pretrained_model_name_or_path={model}", f"--served_model_name={model}", "--torch_dtype=float32",
        "--threads=1", f"--max_model_len={CONTEXT_TOKENS}", "--tool_call_parser=hermes",
        "--host=127.0.0.1", f"--port={port}",
    ]  # fmt: skip


def reference(port: int) -> list[str]:
    """Returns the command of vLLM; what the transformers server has by default is enabled."""
    return [
        str(vllm()), "serve", str(model_directory()), "--dtype=float32", "--enforce-eager",
        f"--max-model-len={CONTEXT_TOKENS}", "--max-num-seqs=32", "--enable-auto-tool-choice",
        "--tool-call-parser=hermes", "--enable-server-load-tracking", "--host=127.0.0.1", f"--port={port}",
    ]  # fmt: skip


COMMANDS: Final = {"ours": ours, "vllm": reference}


@contextlib.contextmanager
def running(name: str, directory: Path) -> Generator[Server]:
    """Starts a server, and ends it with its processes; its log is NAME.log in `directory`.

    Raises:
        SystemExit: it has ended before it answered.
    """
    port = free_port()
    log = directory / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["nice", "-n", "5", *COMMANDS[name](port)],
            env=environment(PYTHONPATH=os.pathsep.join(str(ROOT / "presets" / part) for part in SOURCES)),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    server = Server(name, f"http://127.0.0.1:{port}", str(model_directory()))
    try:
        _wait(process, server, log)
        yield server
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # vLLM's engine is a process that can outlive it
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", server: Server, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{server.url}/health", timeout=5):
            return
        time.sleep(1)
    raise SystemExit(f"{server.name} does not answer: {log.read_text(errors='replace')[-2000:]}")
