"""Credential plugins that do not end, do not stop writing, or leave something behind."""

import asyncio
import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kaito.runtime.client import execplugin
from kaito.runtime.client.execplugin import ExecCredentials, ExecPlugin
from kaito.runtime.errors import TransportError
from kaito.runtime.tasks import TaskScope

API = "client.authentication.k8s.io/v1"
ANSWER = json.dumps({"apiVersion": API, "kind": "ExecCredential", "status": {"token": "t"}})


def script(folder: Path, body: str) -> ExecPlugin:
    """A credential plugin in the shell."""
    path = folder / "plugin.sh"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return ExecPlugin({"apiVersion": API, "command": str(path)}, {})


def written(file: Path) -> str:
    return file.read_text() if file.exists() else ""


async def pid_in(file: Path) -> int:
    async with asyncio.timeout(20):
        while True:
            text = written(file)
            if text.endswith("\n"):
                return int(text)
            await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether the process runs. A zombie that is not reaped does not."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def is_gone(pid: int) -> bool:
    """Whether the process has ended within some seconds."""
    deadline = time.monotonic() + 10
    while is_running(pid):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("sleep 200 & echo $! > {pid}; wait", id="a shell that waits for its child"),
        pytest.param("sleep 200 & echo $! > {pid}; trap '' TERM; wait; wait; sleep 200", id="TERM is ignored"),
        pytest.param("(sleep 200; true) | (sh -c 'echo $$ > {pid}; exec sleep 200')", id="a pipeline"),
    ],
)
async def test_a_plugin_that_hangs_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    """The error comes in time although a grandchild holds the pipes."""
    monkeypatch.setattr(execplugin, "PLUGIN_SECONDS", 1.0)
    began = time.monotonic()
    with pytest.raises(TransportError, match=r"took longer than 1 s"):
        await script(tmp_path, body.format(pid=tmp_path / "pid")).run()
    assert time.monotonic() - began < 10
    assert await is_gone(await pid_in(tmp_path / "pid"))


async def test_a_plugin_that_leaves_a_child_with_its_output_is_answered_at_once(tmp_path: Path) -> None:
    """The process's end counts, not that of its pipes; what holds them is killed."""
    plugin = script(tmp_path, f"sleep 200 & echo $! > {tmp_path}/pid; echo '{ANSWER}'")
    began = time.monotonic()
    assert (await plugin.run()).token == "t"
    assert time.monotonic() - began < 20
    assert await is_gone(await pid_in(tmp_path / "pid"))


async def test_a_child_that_lets_go_of_the_output_may_stay(tmp_path: Path) -> None:
    """A cache that is refreshed in the background, for example."""
    plugin = script(tmp_path, f"sleep 200 >/dev/null 2>&1 & echo $! > {tmp_path}/pid; echo '{ANSWER}'")
    assert (await plugin.run()).token == "t"
    pid = await pid_in(tmp_path / "pid")
    os.kill(pid, 0)
    os.kill(pid, 9)


async def test_the_error_of_a_plugin_does_not_wait_for_its_child_processes(tmp_path: Path) -> None:
    plugin = script(tmp_path, f"sleep 200 & echo $! > {tmp_path}/pid; echo 'log in first' >&2; exit 4")
    with pytest.raises(TransportError, match="failed with exit code 4: log in first"):
        await plugin.run()
    assert await is_gone(await pid_in(tmp_path / "pid"))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo $$ > {pid}; exec cat /dev/zero", "printed more than 1 MiB"),
        ("echo $$ > {pid}; exec cat /dev/zero >&2", "printed more than 8 MiB to standard error"),
    ],
)
async def test_a_plugin_that_floods_is_killed(tmp_path: Path, body: str, words: str) -> None:
    """It takes neither memory nor the event loop."""
    began = time.monotonic()
    with pytest.raises(TransportError, match=words):
        await script(tmp_path, body.format(pid=tmp_path / "pid")).run()
    assert time.monotonic() - began < 30
    assert await is_gone(await pid_in(tmp_path / "pid"))


async def test_the_error_of_a_plugin_contains_the_end_of_a_long_stderr(tmp_path: Path) -> None:
    plugin = script(tmp_path, "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo 'the reason' >&2; exit 2")
    with pytest.raises(TransportError, match=r"failed with exit code 2: .*the reason$"):
        await plugin.run()


async def test_a_cancelled_caller_leaves_no_process(tmp_path: Path) -> None:
    """A request's time limit ends the plugin with its children."""
    plugin = script(tmp_path, f"sleep 200 & echo $! > {tmp_path}/pid; wait")
    async with TaskScope("test") as scope:
        task = scope.spawn(plugin.run(), name="plugin")
        pid = await pid_in(tmp_path / "pid")
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    assert await is_gone(pid)


@pytest.mark.parametrize("moment", ["tomorrow", "2030-01-01T00:00:00", "12"])
async def test_an_expiry_that_is_not_a_point_in_time_is_an_error(tmp_path: Path, moment: str) -> None:
    answer = json.dumps(
        {"apiVersion": API, "kind": "ExecCredential", "status": {"token": "t", "expirationTimestamp": moment}}
    )
    with pytest.raises(TransportError, match="not an RFC 3339 time"):
        await script(tmp_path, f"echo '{answer}'").run()


async def test_a_credential_that_lives_for_minutes_is_used_for_half_of_them(tmp_path: Path) -> None:
    """Not one process for each request."""
    expires = (datetime.now(UTC) + timedelta(minutes=4)).isoformat()
    answer = json.dumps(
        {"apiVersion": API, "kind": "ExecCredential", "status": {"token": "t", "expirationTimestamp": expires}}
    )
    credentials = ExecCredentials(script(tmp_path, f"echo run >> {tmp_path}/runs; echo '{answer}'"))
    for _ in range(5):
        assert await credentials.header() == "Bearer t"
    assert (tmp_path / "runs").read_text() == "run\n"
