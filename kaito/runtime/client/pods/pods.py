"""`Pods`: what the API server relays to the kubelet of a pod, and ephemeral containers.

    async def version_of(request: Request[Memcached], pod: Pod) -> str:
        done = await Pods(request.api.client).run(pod, ["memcached", "--version"])
        return done.text

Nothing is repeated after a failure: a command may have run. Roles need `get` of `pods/log`, `get` and `create` of
`pods/exec` and of `pods/portforward`, and `patch` of `pods/ephemeralcontainers`.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from datetime import datetime
from typing import Any, Final, final
from urllib.parse import quote

from kaito.runtime.client.client import Client
from kaito.runtime.client.pods.execution import V4, V5, Completed, Execution
from kaito.runtime.client.pods.forwarding import PodConnection, local_port
from kaito.runtime.client.pods.logs import lines_of
from kaito.runtime.client.pods.upgrade import open_channels
from kaito.runtime.client.sender import failure
from kaito.runtime.errors import ConfigurationError, TransportError
from kaito.runtime.kinds import Container, Pod
from kaito.runtime.meta.model import format_time
from kaito.runtime.tasks import TaskScope

OUTPUT_BYTES: Final = 2**24
"""Most output of a command that `Pods.run` keeps."""

_STRATEGIC_MERGE = "application/strategic-merge-patch+json"


@final
class Pods:
    """Access to the containers of pods.

    Args:
        client: Sends the requests, with its identity and fence; `request.api.client` in a reconcile function.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    # -- logs --------------------------------------------------------------------------------------------------------

    async def log(
        self,
        pod: Pod,
        *,
        container: str = "",
        previous: bool = False,
        tail_lines: int | None = None,
        since: datetime | None = None,
        limit_bytes: int | None = None,
        timestamps: bool = False,
    ) -> str:
        """Returns the log of a container.

        Args:
            pod: The pod.
            container: Name of the container; a pod with several needs it.
            previous: The log of the container before its last restart.
            tail_lines: Only the last lines.
            since: Only what was written after this time.
            limit_bytes: At most so many bytes.
            timestamps: Begin each line with the time at which it was written.

        Raises:
            NotFound: The pod does not exist.
            BadRequest: The container does not exist, has not started, or is not named.
        """
        options = _log_options(
            container=container,
            previous=previous,
            tail_lines=tail_lines,
            since=since,
            limit_bytes=limit_bytes,
            timestamps=timestamps,
        )
        async with self._log(pod, options) as lines:
            return "".join([f"{line}\n" async for line in lines])

    def follow_log(
        self,
        pod: Pod,
        *,
        container: str = "",
        tail_lines: int | None = None,
        since: datetime | None = None,
        timestamps: bool = False,
    ) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """Yields the lines of a container's log as they are written, until the container ends.

        A container that writes faster than its lines are read is not held back: the kubelet waits. The stream also ends
        when the kubelet or the API server closes it; read the rest with `since`. Arguments and errors are those of
        `log`.
        """
        options = _log_options(container=container, tail_lines=tail_lines, since=since, timestamps=timestamps)
        return self._log(pod, {**options, "follow": "true"})

    @asynccontextmanager
    async def _log(self, pod: Pod, options: dict[str, str]) -> AsyncGenerator[AsyncIterator[str]]:
        target = await self._target(pod, "log", list(options.items()))
        what = f"GET {target.partition('?')[0]}"
        headers = {"accept": "*/*", "user-agent": self._client.user_agent}
        async with self._client.transport.stream("GET", target, headers=headers) as reply:
            if reply.status >= 300:
                raise failure(reply.status, reply.headers, await reply.read(), what)
            async with aclosing(lines_of(reply.chunks())) as lines:
                yield lines

    # -- commands ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def exec(
        self, pod: Pod, command: Sequence[str], *, container: str = "", stdin: bool = False, tty: bool = False
    ) -> AsyncGenerator[Execution]:
        """Starts a command in a container; leaving the scope closes the connection.

        A command that still runs then may go on: Kubernetes does not end it, except that it loses its input and output.

        Args:
            pod: The pod.
            command: Program and arguments; no shell is involved.
            container: Name of the container; a pod with several needs it.
            stdin: Whether the command has an input.
            tty: Whether it has a terminal; its errors are part of the output then.

        Raises:
            ApiError: The server or the kubelet rejected it: no such pod or container, or a missing permission.
            TransportError: There is no connection.
            ConfigurationError: No command, or a client whose writes are dry runs.
        """
        self._check_not_dry("exec", pod)
        if not command or isinstance(command, str):
            raise ConfigurationError(f"exec in {pod.key}: command is a list, such as ['sh', '-c', '...']")
        flags = {"stdin": stdin, "stdout": True, "stderr": not tty, "tty": tty}
        query = [(name, "true") for name, is_set in flags.items() if is_set]
        query += [("container", container)] if container else []
        target = await self._target(pod, "exec", [*query, *(("command", word) for word in command)])
        async with open_channels(self._client, target, [V5] if stdin else [V5, V4]) as socket:
            yield Execution(socket, f"exec in {pod.key}")

    async def run(
        self,
        pod: Pod,
        command: Sequence[str],
        *,
        container: str = "",
        stdin: bytes | None = None,
        output_bytes: int = OUTPUT_BYTES,
    ) -> Completed:
        """Runs a command in a container, and returns its output and exit code.

        Limit the time with `asyncio.timeout`.

        Args:
            pod: The pod.
            command: Program and arguments; no shell is involved.
            container: Name of the container; a pod with several needs it.
            stdin: The input; the command reads its end after it. None: no input.
            output_bytes: Most output that is kept in memory.

        Raises:
            ApiError: The server or the kubelet rejected it, or it could not be started.
            TransportError: The connection was lost, so that the exit code is unknown; or there is more output.
        """
        parts: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        left = output_bytes
        async with (
            self.exec(pod, command, container=container, stdin=stdin is not None) as execution,
            TaskScope("exec") as scope,
            aclosing(execution.output()) as output,
        ):
            if stdin is not None:
                scope.spawn(_feed(execution, stdin), name="stdin")
            async for part in output:
                left -= len(part.data)
                if left < 0:
                    raise TransportError(f"exec in {pod.key}: more than {output_bytes} bytes of output: use exec()")
                parts[part.stream].append(part.data)
            return Completed(await execution.wait(), b"".join(parts["stdout"]), b"".join(parts["stderr"]))

    # -- ports -------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def connect(self, pod: Pod, port: int) -> AsyncGenerator[PodConnection]:
        """Opens a connection to a port of a pod; no Service and no NetworkPolicy is involved.

        Raises:
            ApiError: The server or the kubelet rejected it: no such pod, or a missing permission.
            TransportError: There is no connection. The first `receive` fails if no process listens on the port.
            ConfigurationError: A number that is not a port, or a client whose writes are dry runs.
        """
        self._check_not_dry("portforward", pod)
        if not 0 < port < 2**16:
            raise ConfigurationError(f"portforward of {pod.key}: {port} is not a port")
        target = await self._target(pod, "portforward", [("ports", str(port))])
        async with open_channels(self._client, target, [V4]) as socket:
            yield PodConnection(socket, f"port {port} of {pod.key}")

    def forward(
        self, pod: Pod, port: int, *, local: int = 0, host: str = "127.0.0.1"
    ) -> AbstractAsyncContextManager[int]:
        """Listens on a local port for connections to a port of a pod, as `kubectl port-forward` does.

        A connection that cannot be made is logged and closed.

        Args:
            pod: The pod.
            port: Port of the pod.
            local: The local port; 0 selects a free one, whose number is the value of the scope.
            host: Local address to listen on.

        Raises:
            OSError: The local port cannot be used.
        """
        return local_port(lambda: self.connect(pod, port), host, local)

    # -- ephemeral containers ----------------------------------------------------------------------------------------

    async def add_ephemeral_container(self, pod: Pod, container: Container, *, target: str = "") -> Pod:
        """Adds a container to a running pod, for debugging. It cannot be removed or changed afterwards.

        Args:
            pod: The pod; another one that has its name meanwhile is not changed.
            container: Name, image, command and so on; ports, probes and resources are not allowed.
            target: Name of the container whose processes it sees.

        Raises:
            Invalid: The name is in use, a field is not allowed, or the pod was deleted and another one has its name.
        """
        entry: dict[str, Any] = container.to_dict()
        if target:
            entry["targetContainerName"] = target
        document: dict[str, Any] = {"spec": {"ephemeralContainers": [entry]}}
        if pod.uid:
            document["metadata"] = {"uid": pod.uid}
        path = await self._target(pod, "ephemeralcontainers", [])
        query = {"fieldManager": self._client.field_manager}
        changed = await self._client.raw("PATCH", path, query=query, body=document, content_type=_STRATEGIC_MERGE)
        return Pod.model_validate(changed)

    async def _target(self, pod: Pod, subresource: str, query: Sequence[tuple[str, str]]) -> str:
        path = await self._client.object_target(Pod, pod.name, pod.namespace, subresource)
        return path + ("?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in query) if query else "")

    def _check_not_dry(self, what: str, pod: Pod) -> None:
        if self._client.is_dry_run:
            raise ConfigurationError(f"{what} of {pod.key}: the client's writes are dry runs, which this cannot be")


async def _feed(execution: Execution, stdin: bytes) -> None:
    """Writes the input; a command may end before it has read all of it."""
    try:
        await execution.write(stdin)
        await execution.close_stdin()
    except TransportError:
        return  # the reader reports a lost connection


def _log_options(
    *,
    container: str = "",
    previous: bool = False,
    tail_lines: int | None = None,
    since: datetime | None = None,
    limit_bytes: int | None = None,
    timestamps: bool = False,
) -> dict[str, str]:
    numbers = {"tailLines": tail_lines, "limitBytes": limit_bytes}
    flags = {"previous": previous, "timestamps": timestamps}
    options = {name: str(number) for name, number in numbers.items() if number is not None}
    options |= {name: "true" for name, is_set in flags.items() if is_set}
    options |= {"container": container} if container else {}
    return options | ({"sinceTime": format_time(since)} if since is not None else {})
