"""Logs, commands, ports and ephemeral containers of pods through a real kube-apiserver, with the kubelet's own code.

The kubelet is hack/envtest/control-plane/fake-kubelet: commands are processes of this machine.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from hack.envtest import ControlPlane, Unavailable
from hack.envtest.kubelet import FakeKubelet, pod_on
from kaito.runtime import ApiError, Client, NotFound, ObjectMeta
from kaito.runtime.client import connect
from kaito.runtime.client.pods import Pods
from kaito.runtime.errors import BadRequest, Forbidden, Invalid, ServerError, TransportError
from kaito.runtime.kinds import ClusterRole, ClusterRoleBinding, Container, Namespace, Node, Pod, RoleRef, Subject

pytestmark = [pytest.mark.real, pytest.mark.conformance("client-pods")]


@dataclass
class At:
    """A pod on the kubelet."""

    client: Client
    pods: Pods
    pod: Pod
    node: Node


@pytest.fixture(scope="module")
def kubelet() -> Iterator[FakeKubelet]:
    try:
        with FakeKubelet() as kubelet:
            yield kubelet
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
async def at(control_plane: ControlPlane, kubelet: FakeKubelet) -> AsyncIterator[At]:
    async with connect(control_plane.kubeconfig, field_manager="test") as client:
        name = f"pods-{uuid.uuid4().hex[:8]}"
        await client.create(Namespace(metadata=ObjectMeta(name=name)))
        node = await kubelet.register(client, name)
        pod = await client.create(pod_on(node, "web", name))
        yield At(client, Pods(client), pod, node)


async def other(at: At, name: str, *containers: str) -> Pod:
    return await at.client.create(pod_on(at.node, name, at.pod.namespace, containers=containers or ("main",)))


async def test_a_log_is_read_and_followed(at: At) -> None:
    assert await at.pods.log(at.pod) == "one\ntwo\n"
    found: list[str] = []
    async with at.pods.follow_log(at.pod, container="main") as lines:
        async for line in lines:
            found.append(line)
            if len(found) == 4:
                break
    assert found == ["one", "two", "tick 1", "tick 2"]


async def test_a_log_that_the_kubelet_ends_keeps_its_lines(at: At) -> None:
    async with at.pods.follow_log(await other(at, "cut-log")) as lines:
        assert [line async for line in lines] == ["one", "two"]


async def test_output_errors_and_exit_code_of_a_command(at: At) -> None:
    done = await at.pods.run(at.pod, ["sh", "-c", "echo out; echo bad >&2; exit 3"])
    assert (done.exit_code, done.stdout, done.stderr, done.text) == (3, b"out\n", b"bad\n", "out")
    assert (await at.pods.run(at.pod, ["printf", "%s", "a b&c=d%"])).stdout == b"a b&c=d%"


async def test_the_input_ends(at: At) -> None:
    assert (await at.pods.run(at.pod, ["sh", "-c", "cat; echo end"], stdin=b"abc\n")).stdout == b"abc\nend\n"
    assert (await at.pods.run(at.pod, ["cat"], stdin=b"")).stdout == b""


async def test_large_input_and_output_pass_at_once(at: At) -> None:
    data = bytes(range(256)) * 16_384  # 4 MiB, more than all buffers on the way
    assert (await at.pods.run(at.pod, ["cat"], stdin=data)).stdout == data


async def test_a_command_is_held_back_while_its_output_is_not_read(at: At, tmp_path: Path) -> None:
    """It writes 64 MiB and then a file, which appears only when the output is read."""
    wanted, received, ended = 2**26, 0, tmp_path / "ended"
    async with at.pods.exec(at.pod, ["sh", "-c", f"head -c {wanted} /dev/zero; touch {ended}"]) as execution:
        output = execution.output()
        received += len((await anext(output)).data)
        for _ in range(20):  # other commands run meanwhile
            assert (await at.pods.run(at.pod, ["true"])).exit_code == 0
        assert not ended.exists()
        async for part in output:
            received += len(part.data)
    assert (received, execution.exit_code, ended.exists()) == (wanted, 0, True)


async def test_a_conversation_with_a_command(at: At) -> None:
    script = "while read line; do echo got $line; done; echo bye; exit 5"
    async with at.pods.exec(at.pod, ["sh", "-c", script], stdin=True) as execution:
        output = execution.output()
        await execution.write(b"one\n")
        assert (await anext(output)).data == b"got one\n"
        await execution.write(b"two\n")
        assert (await anext(output)).data == b"got two\n"
        await execution.close_stdin()
        assert await execution.wait() == 5


async def test_too_much_output_is_an_error(at: At) -> None:
    with pytest.raises(TransportError, match="more than 1000 bytes of output"):
        await at.pods.run(at.pod, ["head", "-c", "2000000", "/dev/zero"], output_bytes=1000)


async def test_commands_that_cannot_run(at: At) -> None:
    with pytest.raises(ServerError, match="no such file or directory"):
        await at.pods.run(at.pod, ["/nonexistent"])
    with pytest.raises(NotFound, match='pods "absent" not found'):
        await at.pods.run(Pod(metadata=ObjectMeta(name="absent", namespace=at.pod.namespace)), ["true"])
    with pytest.raises(BadRequest, match="container x is not valid for pod web"):
        await at.pods.run(at.pod, ["true"], container="x")
    with pytest.raises(BadRequest, match="a container name must be specified"):
        await at.pods.run(await other(at, "two", "a", "b"), ["true"])
    with pytest.raises(ApiError, match="error sending request"):
        await at.pods.run(await other(at, "cut-exec"), ["true"])


async def test_a_connection_to_a_port(at: At) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
            if data.endswith(b"quit"):
                break
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        async with at.pods.connect(at.pod, port) as connection:
            await connection.send(b"hello")
            assert await connection.receive() == b"hello"
            await connection.send(b"quit")
            assert await connection.receive() == b"quit"
            assert await connection.receive() == b""
        async with at.pods.forward(at.pod, port) as local:
            reader, writer = await asyncio.open_connection("127.0.0.1", local)
            data = b"y" * 1_000_000
            writer.write(data)
            assert await reader.readexactly(len(data)) == data
            writer.write(b"quit")
            assert await reader.read() == b"quit"
            writer.close()
    async with at.pods.connect(at.pod, port) as refused:
        with pytest.raises(TransportError, match="connection refused"):
            await refused.receive()


async def test_the_role_of_an_operator_that_runs_commands(
    at: At, control_plane: ControlPlane, tmp_path: object
) -> None:
    """Since Kubernetes 1.35 an upgrade needs `create`, too."""
    name = f"runner-{at.pod.namespace}"
    rules = [{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get"]}]
    role = await at.client.create(ClusterRole.model_validate({"metadata": {"name": name}, "rules": rules}))
    await at.client.create(
        ClusterRoleBinding(
            metadata=ObjectMeta(name=name),
            role_ref=RoleRef(api_group="rbac.authorization.k8s.io", kind="ClusterRole", name=name),
            subjects=[Subject(kind="User", api_group="rbac.authorization.k8s.io", name=name)],
        )
    )
    document = yaml.safe_load(control_plane.kubeconfig.read_text())
    document["users"][0]["user"]["as"] = name
    kubeconfig = control_plane.folder / f"{name}.kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(document))
    async with connect(kubeconfig, field_manager="test") as limited:
        pods = Pods(limited)
        await _eventually_forbidden(pods, at.pod)
        rules[0]["verbs"] = ["get", "create"]
        await at.client.apply(role.evolve(rules=ClusterRole.model_validate({"rules": rules}).rules))
        async with asyncio.timeout(10):
            while True:
                try:
                    assert (await pods.run(at.pod, ["echo", "ok"])).text == "ok"
                except Forbidden:
                    await asyncio.sleep(0.05)
                else:
                    return


async def _eventually_forbidden(pods: Pods, pod: Pod) -> None:
    """Waits until the authorizer knows the role. The server's message about the missing `create` has no reason."""
    async with asyncio.timeout(10):
        while True:
            with pytest.raises(Forbidden) as refused:
                await pods.run(pod, ["true"])
            if "cannot get" not in str(refused.value):
                return
            await asyncio.sleep(0.05)


async def test_an_ephemeral_container_is_added_to_this_pod_only(at: At) -> None:
    debug = Container(name="debug", image="busybox", command=["sh"])
    changed = await at.pods.add_ephemeral_container(at.pod, debug, target="main")
    (added,) = changed.to_dict()["spec"]["ephemeralContainers"]
    assert (added["name"], added["image"], added["targetContainerName"]) == ("debug", "busybox", "main")
    with pytest.raises(Invalid, match=r"metadata\.uid"):
        await at.pods.add_ephemeral_container(at.pod.with_metadata(uid=str(uuid.uuid4())), debug)
