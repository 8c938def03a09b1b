"""Groups of wrappers that serve one copy of a model together, with a stub in the place of `vllm serve`."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kaito_presets.errors import ConfigurationError
from kaito_presets.vllm.group import Follower, Leader, Membership, engine_group_flags, read_membership
from kaito_presets.vllm.options import read_options

STUB = Path(__file__).with_name("stub_engine.py")
POD = {"KAITO_LEADERS": "r1", "KAITO_GROUP_SERVICE": "r1-headless", "VLLM_HOST_IP": "10.0.0.7"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def member(rank: int, port: int, size: int = 2) -> Membership:
    return Membership(size=size, rank=rank, leader="127.0.0.1", port=port, address="127.0.0.1")


# nodes of a copy, pod -> rank, leader
PLACES = [
    (2, "r1-0", 0, "r1-0.r1-headless"),
    (2, "r1-3", 0, "r1-3.r1-headless"),
    (2, "r1-workers-0", 1, "r1-0.r1-headless"),
    (2, "r1-workers-3", 1, "r1-3.r1-headless"),
    (4, "r1-workers-0", 1, "r1-0.r1-headless"),
    (4, "r1-workers-2", 3, "r1-0.r1-headless"),
    (4, "r1-workers-3", 1, "r1-1.r1-headless"),
    (4, "r1-workers-11", 3, "r1-3.r1-headless"),
]


@pytest.mark.parametrize(("nodes", "pod", "rank", "leader"), PLACES)
def test_the_name_of_the_pod_decides_rank_and_leader(nodes: int, pod: str, rank: int, leader: str) -> None:
    options = read_options([f"--kaito-nodes={nodes}"]).options

    found = read_membership(options, {**POD, "KAITO_POD_NAME": pod})

    assert found == Membership(size=nodes, rank=rank, leader=leader, port=29502, address="10.0.0.7")
    assert found is not None
    assert found.is_leader is (rank == 0)


async def _killed(_reason: str) -> None:
    """Takes the place of `leave` in a process that is killed: it reports nothing."""


def test_one_node_is_no_group_and_flags_replace_the_pod() -> None:
    assert read_membership(read_options([]).options, {}) is None
    flags = ["--kaito-nodes=3", "--kaito-node-rank=2", "--kaito-leader=10.0.0.1", "--kaito-group-port=9"]
    found = read_membership(read_options(flags).options, {})
    assert found == Membership(size=3, rank=2, leader="10.0.0.1", port=9, address="10.0.0.1")


@pytest.mark.parametrize(
    ("flags", "environment"),
    [
        ((), {}),
        ((), {**POD, "KAITO_POD_NAME": "r1"}),
        ((), {"KAITO_POD_NAME": "r1-0", "KAITO_GROUP_SERVICE": "s"}),
        (("--kaito-node-rank=2", "--kaito-leader=a"), {}),
    ],
)
def test_a_group_without_a_place_is_rejected(flags: tuple[str, ...], environment: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="--kaito-node"):
        read_membership(read_options(["--kaito-nodes=2", *flags]).options, environment)


def test_engines_of_a_group_use_vllms_multi_node_mode() -> None:
    leader = engine_group_flags(member(0, 1, size=4), ("10.0.0.1", 29501))
    worker = engine_group_flags(member(3, 1, size=4), ("10.0.0.1", 29501))

    assert leader == {
        "distributed-executor-backend": "mp",
        "nnodes": 4,
        "node-rank": 0,
        "master-addr": "10.0.0.1",
        "master-port": 29501,
    }
    assert worker == {**leader, "node-rank": 3, "headless": True}


async def test_all_members_start_together_and_a_late_one_is_waited_for() -> None:
    port = free_port()
    leader = Leader(member(0, port, size=3), master_port=77)
    first, second = (Follower(member(rank, port, size=3)) for rank in (1, 2))
    async with leader.listening("127.0.0.1"), asyncio.TaskGroup() as group:
        start = group.create_task(leader.wait_for_workers())
        runs = [group.create_task(first.run())]
        await asyncio.wait({first.started}, timeout=0.3)
        assert not first.started.done()
        assert not start.done()
        runs.append(group.create_task(second.run()))
        async with asyncio.timeout(10):
            assert await first.started == await second.started == ("127.0.0.1", 77)
            await start
        assert not leader.ended.done()
        for run in runs:
            run.cancel()


async def test_a_worker_that_leaves_ends_the_group_with_its_reason() -> None:
    port = free_port()
    leader, follower = Leader(member(0, port)), Follower(member(1, port))
    async with leader.listening("127.0.0.1"), asyncio.TaskGroup() as group:
        run = group.create_task(follower.run())
        async with asyncio.timeout(10):
            await leader.wait_for_workers()
            await follower.started
            await follower.leave("its engine exited with code 9")
            assert await leader.ended == "worker 1: its engine exited with code 9"
        run.cancel()


async def test_a_leader_that_leaves_ends_the_workers_with_its_reason() -> None:
    port = free_port()
    leader, follower = Leader(member(0, port)), Follower(member(1, port))
    async with asyncio.TaskGroup() as group:
        async with leader.listening("127.0.0.1"):
            run = group.create_task(follower.run())
            async with asyncio.timeout(10):
                await leader.wait_for_workers()
                await follower.started
                await leader.leave("the engine of the leader exited with code 3")
                assert await follower.ended == "the engine of the leader exited with code 3"
        run.cancel()


async def test_a_worker_that_restarted_ends_the_group_at_once() -> None:
    port = free_port()
    leader = Leader(member(0, port))
    async with leader.listening("127.0.0.1"), asyncio.TaskGroup() as group:
        before = group.create_task(Follower(member(1, port)).run())
        async with asyncio.timeout(10):
            await leader.wait_for_workers()
            after = group.create_task(Follower(member(1, port)).run())
            assert await leader.ended == "worker 1 restarted"
        before.cancel()
        after.cancel()


async def test_a_leader_that_restarted_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    follower = Follower(member(1, port))
    async with asyncio.TaskGroup() as group:
        run = group.create_task(follower.run())
        async with asyncio.timeout(20):
            first = Leader(member(0, port))
            async with first.listening("127.0.0.1"):
                await first.wait_for_workers()
                await follower.started
                monkeypatch.setattr(first, "leave", _killed)
            async with Leader(member(0, port)).listening("127.0.0.1"):
                assert await follower.ended == "the leader restarted"
        run.cancel()


async def test_a_leader_that_restarted_starts_with_the_next_process_of_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    before, after = Follower(member(1, port)), Follower(member(1, port))
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(before.run())]
        async with asyncio.timeout(20):
            first = Leader(member(0, port))
            async with first.listening("127.0.0.1"):
                await first.wait_for_workers()
                await before.started
                monkeypatch.setattr(first, "leave", _killed)
            second = Leader(member(0, port))
            async with second.listening("127.0.0.1"):
                start = group.create_task(second.wait_for_workers())
                await before.ended
                assert not start.done()
                runs.append(group.create_task(after.run()))
                await start
                await after.started
                assert not second.ended.done()
        for run in runs:
            run.cancel()


async def test_silence_ends_both_sides() -> None:
    port = free_port()
    leader, follower = Leader(member(0, port), silence_seconds=0.3), Follower(member(1, port), silence_seconds=0.3)
    async with leader.listening("127.0.0.1"), asyncio.TaskGroup() as group:
        run = group.create_task(follower.run())
        async with asyncio.timeout(10):
            await leader.wait_for_workers()
            assert await leader.ended == "worker 1 has not been heard of for 0 s"
            assert "the leader" in await follower.ended
        run.cancel()


def wait_until_answered(port: int, path: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{path} on port {port} was not answered")


class Wrappers:
    """Wrappers of one group as processes."""

    def __init__(self, directory: Path, size: int = 2) -> None:
        self.directory, self.size = directory, size
        self.port, self.group_port = free_port(), free_port()
        self.model = directory / "model"
        self.model.mkdir()
        (self.model / "config.json").write_text("{}")
        self.engine = directory / "vllm"
        log = directory / "starts.log"
        self.engine.write_text(f'#!/bin/sh\nexec {sys.executable} {STUB} "$@" --log={log}\n')
        self.engine.chmod(0o755)
        self.running: list[subprocess.Popen[str]] = []

    def start(self, rank: int, *flags: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "kaito_presets.vllm.main", f"--model={self.model}", "--max-model-len=100"]
        command += [f"--kaito-engine={self.engine}", "--host=127.0.0.1", f"--kaito-nodes={self.size}"]
        port = self.port if rank == 0 else free_port()
        command += [f"--port={port}", f"--kaito-adapters-dir={self.model / 'none'}"]
        command += [f"--kaito-node-rank={rank}", "--kaito-leader=127.0.0.1", f"--kaito-group-port={self.group_port}"]
        process = subprocess.Popen([*command, *flags], stderr=subprocess.PIPE, text=True)
        self.running.append(process)
        wait_until_answered(port, "/")  # it listens, and handles SIGTERM
        return process

    def starts(self, count: int) -> list[dict[str, Any]]:
        """The flags of the engines, once as many have started."""
        deadline, lines = time.monotonic() + 60, list[str]()
        while len(lines) < count and time.monotonic() < deadline:
            time.sleep(0.1)
            log = self.directory / "starts.log"
            lines = log.read_text().splitlines() if log.exists() else []
        return [json.loads(line) for line in lines]

    def kill(self, process: "subprocess.Popen[str]") -> None:
        """Ends a wrapper and its engine at once, like the death of the first process of a container."""
        listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
        process.kill()
        for child in listed.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(child), signal.SIGKILL)

    def wait_until_healthy(self) -> None:
        wait_until_answered(self.port, "/health")


@pytest.fixture
def wrappers(tmp_path: Path) -> Iterator[Wrappers]:
    found = Wrappers(tmp_path)
    yield found
    for process in found.running:
        if process.poll() is None:
            found.kill(process)
        process.communicate()


def test_a_group_serves_and_is_stopped_together(wrappers: Wrappers) -> None:
    leader, worker = wrappers.start(0), wrappers.start(1)
    wrappers.wait_until_healthy()

    started = {int(flags["node-rank"]): flags for flags in wrappers.starts(2)}
    assert started[0]["nnodes"] == started[1]["nnodes"] == "2"
    assert "headless" in started[1]
    assert "headless" not in started[0]
    leader.send_signal(signal.SIGTERM)
    worker.send_signal(signal.SIGTERM)
    assert (leader.wait(30), worker.wait(30)) == (0, 0)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_member_that_is_killed_ends_the_group(wrappers: Wrappers, killed: int) -> None:
    members = [wrappers.start(0), wrappers.start(1)]
    wrappers.wait_until_healthy()
    assert len(wrappers.starts(2)) == 2  # both engines run
    wrappers.kill(members[killed])
    other = members[1 - killed]
    _, output = other.communicate(timeout=60)
    assert other.returncode == 7
    last = output.strip().splitlines()[-1]
    assert last.startswith("kaito-vllm: the group ended: the connection to ")


def test_an_engine_that_dies_on_a_worker_is_the_cause_that_the_leader_reports(wrappers: Wrappers) -> None:
    leader, worker = wrappers.start(0), wrappers.start(1, "--die=1")
    _, output = leader.communicate(timeout=60)
    assert worker.wait(30) == 7  # the code of the stub's engine
    assert leader.returncode == 7
    assert "the group ended: worker 1: its engine exited with code 7" in output.strip().splitlines()[-1]


def test_a_worker_whose_pod_is_stopped_lets_the_leader_finish(wrappers: Wrappers) -> None:
    leader, worker = wrappers.start(0), wrappers.start(1)
    wrappers.wait_until_healthy()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert leader.wait(30) == 0


def test_a_worker_waits_for_its_leader_and_can_be_stopped_meanwhile(wrappers: Wrappers) -> None:
    worker = wrappers.start(1)
    assert worker.poll() is None
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert not (wrappers.directory / "starts.log").exists()
