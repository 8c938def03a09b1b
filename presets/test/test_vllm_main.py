"""The vLLM wrapper from flags to exit code, in process; only the engine is a child process."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from kaito_presets.errors import ConfigurationError
from kaito_presets.serving.adapters import Adapter
from kaito_presets.vllm import engine as engines, launch as launches, main as wrapper
from kaito_presets.vllm.engine import Engine
from kaito_presets.vllm.hardware import Gpu
from kaito_presets.vllm.launch import Launch, plan_launch
from kaito_presets.vllm.main import serve
from kaito_presets.vllm.options import read_options

STUB = Path(__file__).with_name("stub_engine.py")
GIB = 2**30


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launches, "read_gpus", tuple)
    monkeypatch.setattr(launches, "read_memory_limit", lambda: 64 * GIB)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    config = {"num_attention_heads": 4, "hidden_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 9000}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    script = tmp_path / "vllm"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {STUB} "$@" --log={tmp_path / "starts.log"}\n')
    script.chmod(0o755)
    return script


def launch_of(tmp_path: Path, *flags: str, adapters: tuple[Adapter, ...] = ()) -> Launch:
    return plan_launch(read_options([*flags]), adapters, tmp_path / "scratch")


def address() -> list[str]:
    """Flags of an address that is free."""
    return ["--host=127.0.0.1", f"--port={wrapper.find_free_port()}"]


def starts(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "starts.log").read_text().splitlines()]


def test_defaults_of_a_launch(tmp_path: Path) -> None:
    launch = launch_of(tmp_path)
    assert (launch.model, launch.host, launch.port) == ("/workspace/vllm/weights", "0.0.0.0", 5000)
    assert launch.flags == {"uvicorn-log-level": "error"}
    assert launch.adapters == []
    assert launch.served_name == "/workspace/vllm/weights"
    assert launch.in_flight_limit == 512
    assert launch.probe_steps == 6
    assert launch.command(launch.flags, "--port=1") == [
        "vllm", "serve", "/workspace/vllm/weights", "--port=1", "--uvicorn-log-level=error",
    ]  # fmt: skip


def test_flags_of_the_wrapper_are_not_passed_to_the_engine(tmp_path: Path, model: Path) -> None:
    launch = launch_of(
        tmp_path, f"--model={model}", "--host=::1", "--port=7", "--max-num-seqs=4", "--served-model-name", "a", "b",
        "--kaito-engine=/x/vllm",
    )  # fmt: skip
    assert (launch.model, launch.host, launch.port) == (str(model), "::1", 7)
    assert launch.flags == {"uvicorn-log-level": "error", "max-num-seqs": "4", "served-model-name": ["a", "b"]}
    assert launch.served_name == "a"
    assert launch.in_flight_limit == 8
    assert launch.model_properties.context_tokens == 9000
    assert launch.command({})[0] == "/x/vllm"


def test_port_of_a_further_process_on_the_node_is_offset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert launch_of(tmp_path).port == 5003
    with pytest.raises(ConfigurationError, match=r"^--port: 'x' is not a port number$"):
        launch_of(tmp_path, "--port=x")


@pytest.mark.parametrize(
    ("flags", "steps"),
    [([], 6), (["--kaito-max-probe-steps=2"], 2), (["--kaito-max-probe-steps=0"], 0), (["--max-model-len=99"], 0)],
)
def test_further_starts_depend_on_flags_and_file(tmp_path: Path, flags: list[str], steps: int) -> None:
    assert launch_of(tmp_path, *flags).probe_steps == steps
    file = tmp_path / "c.yaml"
    file.write_text("max_probe_steps: 3")
    assert launch_of(tmp_path, f"--kaito-config-file={file}").probe_steps == 3


def test_rate_limit_can_be_disabled(tmp_path: Path) -> None:
    assert launch_of(tmp_path, "--kaito-disable-rate-limit").in_flight_limit is None


def test_hardware_adapters_and_offload_are_part_of_the_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launches, "read_gpus", lambda: (Gpu("A", 80 * GIB, 80 * GIB, (8, 0)),))
    source = tmp_path / "half"
    source.mkdir()
    (source / "adapter_config.json").write_text('{"r": 8}')
    launch = launch_of(
        tmp_path, "--kaito-nodes=2", "--kaito-kv-cache-cpu-memory-utilization=0.5",
        adapters=(Adapter("half", source, 0.5, 8, None),),
    )  # fmt: skip
    assert launch.adapters == ["half"]
    assert launch.flags["lora-modules"] == [f"half={tmp_path / 'scratch' / 'half'}"]
    assert launch.flags["pipeline-parallel-size"] == 2
    assert launch.flags["gpu-memory-utilization"] == 0.95
    assert launch.flags["kv-offloading-size"] == "32.0"


def test_dry_run_prints_command_and_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = tmp_path / "adapters" / "a"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text('{"r": 8}')
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    monkeypatch.setenv("KAITO_ADAPTER_STRENGTHS", '{"a": 0.5}')
    monkeypatch.setattr(
        sys,
        "argv",
        ["kaito-vllm", "--kaito-dry-run", f"--kaito-adapters-dir={adapter.parent}", "--model=m", "--port=9"],
    )
    assert wrapper.main() == 0
    document = json.loads(capsys.readouterr().out)
    assert document["port"] == 9
    assert document["command"][:3] == ["vllm", "serve", "m"]
    (module,) = [word for word in document["command"] if word.startswith("a=")]
    assert module.endswith("/a")
    assert module != f"a={adapter}", "the adapter is not scaled"


def test_wrong_flags_are_the_last_line_of_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["kaito-vllm", "--kaito-nodes=x"])
    assert wrapper.main() == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("kaito-vllm: --kaito_nodes: ")


async def run_until(launch: Launch, ready: Callable[[str], Any] | None = None) -> int:
    """Serves; once healthy, calls `ready` and sends SIGTERM."""
    task = asyncio.get_running_loop().create_task(serve(launch))
    url = f"http://127.0.0.1:{launch.port}"
    async with ClientSession() as session, asyncio.timeout(60):
        while ready is not None and not task.done():
            try:
                async with session.get(url + "/health") as response:
                    if response.status == 200:
                        await ready(url)
                        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
                        os.kill(os.getpid(), signal.SIGTERM)
                        break
            except OSError:
                pass
            await asyncio.sleep(0.05)
        return await task


@pytest.mark.usefixtures("machine")
async def test_fitting_context_is_searched_and_served(tmp_path: Path, model: Path, engine: Path) -> None:
    launch = launch_of(
        tmp_path, f"--model={model}", *address(), "--served-model-name=phi",
        f"--kaito-engine={engine}", adapters=(Adapter("tuned", model, 1.0, 8, None),),
    )  # fmt: skip
    seen: dict[str, Any] = {}

    async def ready(url: str) -> None:
        async with ClientSession() as session, session.get(url + "/version") as response:
            seen.update(await response.json())

    assert await run_until(launch, ready) == 0
    assert seen["model"] == "phi"
    assert [start.get("max-model-len") for start in starts(tmp_path)] == [None, "2992"]
    assert {start["host"] for start in starts(tmp_path)} == {"127.0.0.1"}


async def test_number_of_further_starts_is_limited(tmp_path: Path, model: Path, engine: Path) -> None:
    launch = launch_of(
        tmp_path, f"--model={model}", *address(), "--kaito-max-probe-steps=0",
        f"--kaito-engine={engine}",
    )  # fmt: skip
    assert await run_until(launch) == 1
    assert len(starts(tmp_path)) == 1


async def test_exit_code_of_the_engine_is_that_of_the_wrapper(tmp_path: Path, model: Path, engine: Path) -> None:
    launch = launch_of(
        tmp_path, f"--model={model}", *address(), "--max-model-len=100",
        "--die",
        f"--kaito-engine={engine}",
    )  # fmt: skip
    assert await run_until(launch) == 7


async def test_clean_exit_of_the_engine_is_a_failure(tmp_path: Path, model: Path) -> None:
    launch = launch_of(
        tmp_path, f"--model={model}", *address(), "--kaito-engine=true",
    )  # fmt: skip
    assert await run_until(launch) == 1


async def test_missing_engine_is_a_configuration_error(tmp_path: Path, model: Path) -> None:
    launch = launch_of(
        tmp_path, f"--model={model}", *address(),
        f"--kaito-engine={tmp_path / 'absent'}",
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match=r"^the engine cannot be started: .*; is vllm installed\?$"):
        await run_until(launch)


class Busy:
    """A proxy with a running request."""

    def __init__(self) -> None:
        self.state = "Healthy"
        self.idle = False


async def test_drain_waits_for_running_requests_until_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy: Any = Busy()
    never = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()
    started = loop.time()
    await wrapper.drain(proxy, never, 0.3)
    assert proxy.state == "Draining"
    assert 0.3 <= loop.time() - started < 5
    waiting = loop.create_task(wrapper.drain(proxy, never, 60))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    proxy.idle = True
    async with asyncio.timeout(5):
        await waiting
    proxy.idle = False
    never.set_result(0)
    async with asyncio.timeout(5):
        await wrapper.drain(proxy, never, 60)


# The process of the engine.


async def test_output_is_forwarded_and_stored(capsys: pytest.CaptureFixture[str]) -> None:
    engine = Engine(["/bin/sh", "-c", "echo one; echo two >&2; exit 5"])
    await engine.start()
    assert await engine.wait() == 5
    assert engine.output == "one\ntwo\n"
    assert capsys.readouterr().err == "one\ntwo\n"


async def test_only_the_last_400_lines_are_stored() -> None:
    engine = Engine(["/bin/sh", "-c", "seq 1 500"])
    await engine.start()
    assert await engine.wait() == 0
    assert engine.output.splitlines() == [str(number) for number in range(101, 501)]


async def test_line_above_the_limit_is_skipped() -> None:
    engine = Engine(["/bin/sh", "-c", "head -c 3000000 /dev/zero; echo; echo end"])
    await engine.start()
    assert await engine.wait() == 0
    assert engine.output.endswith("end\n")


async def test_stop_terminates_then_kills(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(["/bin/sh", "-c", "exec sleep 100"])
    await engine.stop()  # before the start: no effect
    await engine.start()
    await engine.stop()
    assert await engine.wait() == -signal.SIGTERM
    assert "killing it" not in caplog.text
    await engine.stop()  # after the end: no effect
    monkeypatch.setattr(engines, "TERMINATION_SECONDS", 0.2)
    stubborn = Engine(
        [
            sys.executable,
            "-c",
            "import signal,time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(100)",
        ]
    )
    await stubborn.start()
    waiting = asyncio.get_running_loop().create_task(stubborn.wait())
    while not stubborn.output:  # noqa: ASYNC110 - the process sends no other event
        await asyncio.sleep(0.01)
    await stubborn.stop()
    assert await waiting == -signal.SIGKILL
    assert "the engine did not exit within 0 s of SIGTERM; killing it" in caplog.text


async def test_engine_that_was_not_started_cannot_be_awaited() -> None:
    with pytest.raises(RuntimeError, match=r"^the engine was not started$"):
        await Engine(["x"]).wait()
