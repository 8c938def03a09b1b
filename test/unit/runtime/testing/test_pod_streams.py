"""Logs, commands and ports of pods in the in-memory cluster, as operators under test use them."""

import pytest

from kaito.runtime import Client, NotFound, ObjectMeta
from kaito.runtime.client.pods import Pods
from kaito.runtime.errors import BadRequest, ConfigurationError, Forbidden, ServerError, TransportError
from kaito.runtime.kinds import Container, Pod
from kaito.runtime.testing import ExecCall, ExecResult, PortCall, World, pod


def pods_of(world: World, user: str = "") -> Pods:
    return Pods(Client(world.transport(user=user), field_manager="test"))


def postgres(call: ExecCall) -> ExecResult:
    """Answers like a server of PostgreSQL."""
    if call.command == ("psql",):
        return ExecResult(stdout=call.stdin.upper())
    return ExecResult(stderr=b"sh: not found", exit_code=127)


@pytest.mark.conformance("client-pods")
async def test_commands_get_the_answers_of_the_test(world: World) -> None:
    db = world.put(pod("db"))
    world.answer_exec(postgres)
    pods = pods_of(world)
    assert (await pods.run(db, ["psql"], stdin=b"select 1;")).stdout == b"SELECT 1;"
    failed = await pods.run(db, ["mysql"])
    assert (failed.exit_code, failed.stderr) == (127, b"sh: not found")


async def test_calls_name_pod_and_container(world: World) -> None:
    calls: list[ExecCall] = []

    async def record(call: ExecCall) -> ExecResult:
        calls.append(call)
        return ExecResult()

    world.answer_exec(record)
    db = world.put(pod("db"))
    container = db.spec.containers[0].name
    await pods_of(world).run(db, ["true", "a b"], container=container)
    assert calls == [ExecCall("default", "db", ("true", "a b"), container)]


async def test_the_server_checks_pod_and_container(world: World) -> None:
    world.answer_exec(postgres)
    db = world.put(pod("db"))
    pods = pods_of(world)
    with pytest.raises(BadRequest, match="container x is not valid for pod db"):
        await pods.run(db, ["psql"], container="x")
    with pytest.raises(NotFound, match='pods "absent" not found'):
        await pods.run(Pod(metadata=ObjectMeta(name="absent", namespace="default")), ["psql"])
    world.answer_exec(None)
    with pytest.raises(ConfigurationError, match="give the world an answer"):
        await pods.run(db, ["psql"])


async def test_an_upgrade_needs_two_verbs(world: World) -> None:
    world.answer_exec(postgres)
    db = world.put(pod("db"))
    with pytest.raises(Forbidden, match='cannot get resource "pods/exec"'):
        await pods_of(world, user="stranger").run(db, ["psql"])
    await pods_of(world).run(db, ["psql"])
    (rule,) = [rule for rule in world.rules_needed() if rule.resources == ["pods/exec"]]
    assert rule.verbs == ["get", "create"]


async def test_faults_hit_connections_to_pods(world: World) -> None:
    world.answer_exec(postgres)
    db = world.put(pod("db"))
    pods = pods_of(world)
    world.fail_next("get", Pod, subresource="exec", status=503)
    with pytest.raises(ServerError, match="injected fault"):
        await pods.run(db, ["psql"])
    transport = world.transport()
    async with Pods(Client(transport, field_manager="test")).exec(db, ["psql"], stdin=True) as execution:
        transport.break_streams()
        with pytest.raises(TransportError, match="connection reset"):
            await execution.wait()
        with pytest.raises(TransportError, match="closed"):
            await execution.write(b"x")


async def test_logs_are_those_of_the_test(world: World) -> None:
    db = world.put(pod("db"))
    world.set_log("db", "one\ntwo\nthree")
    world.set_log("db", "started\n", container="sidecar")
    pods = pods_of(world)
    assert await pods.log(db) == "one\ntwo\nthree\n"
    assert await pods.log(db, tail_lines=1) == "three\n"
    assert await pods.log(db, container="sidecar") == "started\n"
    async with pods.follow_log(db) as lines:
        assert [line async for line in lines] == ["one", "two", "three"]


async def test_ports_get_the_answers_of_the_test(world: World) -> None:
    def answer(call: PortCall) -> bytes | None:
        return None if call.data == b"QUIT" else b"+" + call.data

    world.answer_port(answer)
    cache = world.put(pod("cache"))
    async with pods_of(world).connect(cache, 6379) as connection:
        await connection.send(b"PING")
        assert await connection.receive() == b"+PING"
        await connection.send(b"QUIT")
        assert await connection.receive() == b""


async def test_an_ephemeral_container_is_added(world: World) -> None:
    db = world.put(pod("db"))
    changed = await pods_of(world).add_ephemeral_container(db, Container(name="debug", image="busybox"))
    assert [each["name"] for each in changed.to_dict()["spec"]["ephemeralContainers"]] == ["debug"]
