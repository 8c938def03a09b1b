"""Replicas that share shards, as processes, on both servers: SIGKILL, clean stop, and a replica that joins."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest

from test.support.stack import Program

OPERATOR = Path(__file__).parents[1] / "support" / "sharded_operator.py"
KEYS = 24
POLL_SECONDS = 0.2
KILLED_SECONDS = 40.0
"""Longest time until the keys of a killed replica are reconciled by others: its leases last 6 s."""


class Server(Protocol):
    @property
    def kubeconfig(self) -> Path: ...
    @property
    def namespace(self) -> str: ...
    async def ok(self, method: str, path: str, body: object = None, content: str = ..., **query: str) -> Any: ...


class Line(NamedTuple):
    what: str
    at: float
    replica: str
    key: str
    content: str


class Replicas:
    """Processes of one operator, and what they printed."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self.programs: dict[str, Program] = {}

    def start(self, identity: str) -> Program:
        arguments = [str(self._server.kubeconfig), self._server.namespace, identity]
        command = [sys.executable, str(OPERATOR), *arguments]
        program = self.programs[identity] = Program(identity, command, self._folder / f"{identity}.log")
        program.start()
        return program

    def lines(self) -> list[Line]:
        found: list[Line] = []
        for program in self.programs.values():
            for text in program.log.read_text().splitlines():
                words = text.split()
                if words and words[0] in {"begin", "seen", "end"} and len(words) == 5:
                    found.append(Line(words[0], float(words[1]), *words[2:]))
        return sorted(found, key=lambda line: line.at)

    def seen(self) -> dict[str, str]:
        return {line.key: line.content for line in self.lines() if line.what == "seen"}

    def overlaps(self) -> Iterator[str]:
        running: dict[str, Line] = {}
        for line in self.lines():
            if line.what == "begin":
                other = running.get(line.key)
                if other is not None and self.programs[other.replica].process is not None:
                    yield f"{line} began while {other} was running"
                running[line.key] = line
            elif line.what == "end":
                running.pop(line.key, None)

    async def until_seen(self, content: str, seconds: float) -> None:
        for _ in range(int(seconds / POLL_SECONDS)):
            if list(self.seen().values()).count(content) == KEYS:
                return
            await asyncio.sleep(POLL_SECONDS)
        logs = "\n".join(program.log.read_text()[-3000:] for program in self.programs.values())
        pytest.fail(f"not all keys were reconciled with {content}: {self.seen()}\n{logs}")


async def write(server: Server, content: str) -> None:
    path = f"/api/v1/namespaces/{server.namespace}/configmaps"
    for number in range(KEYS):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"m{number}"}, "data": {"v": content}}
        text = json.dumps(body)
        where = f"{path}/m{number}?fieldManager=test&force=true"
        await server.ok("PATCH", where, json.loads(text), "application/apply-patch+yaml")


@pytest.mark.timeout(180)
@pytest.mark.conformance("sharding-6")
async def test_replicas_are_killed_stopped_and_started(server: Server, tmp_path: Path) -> None:
    replicas = Replicas(server, tmp_path)
    await write(server, "one")
    try:
        replicas.start("a")
        replicas.start("b")
        third = replicas.start("c")
        await replicas.until_seen("one", KILLED_SECONDS)
        await asyncio.sleep(5)
        await write(server, "two")
        await replicas.until_seen("two", KILLED_SECONDS)
        assert {line.replica for line in replicas.lines() if line.content == "two"} == {"a", "b", "c"}
        third.kill()
        await write(server, "three")
        await replicas.until_seen("three", KILLED_SECONDS)
        replicas.programs["b"].stop()
        await write(server, "four")
        await replicas.until_seen("four", 20)
        replicas.start("d")
        await asyncio.sleep(5)
        await write(server, "five")
        await replicas.until_seen("five", KILLED_SECONDS)
        assert {line.replica for line in replicas.lines() if line.content == "five"} == {"a", "d"}
        assert list(replicas.overlaps()) == []
    finally:
        for program in replicas.programs.values():
            program.stop()
