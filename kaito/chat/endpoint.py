"""Finds the server of a Workspace and streams answers from it; used by `kaito chat` and the console.

Requests go through the API server's proxy to the Workspace's Service, so that a kubeconfig is sufficient. `kaito up`
publishes Services on the loopback network, which the proxy refuses; there, the pod is called directly.
"""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, final

from kaito.api import Workspace, conditions
from kaito.api.json_values import json_list, json_object
from kaito.runtime.client import Client, ClusterConfig, HttpTransport, NoCredentials, StreamReply
from kaito.runtime.errors import Forbidden
from kaito.runtime.kinds import Pod, Service
from kaito.runtime.meta import find_condition
from kaito.workspace.manifests.service import SERVER_PORT
from kaito.workspace.ownership import pod_labels

ANSWER_SECONDS: Final = 600.0
"""Time limit of an answer's first token and between two tokens. A request may wait in the queue of a busy server."""

MODELS_SECONDS: Final = 30.0
"""Time without data after which a request for the list of models fails."""

MAX_RESPONSE_BYTES: Final = 2**22
"""Longest response, and longest event of a stream."""

Message = Mapping[str, str]

_JSON: Final[Mapping[str, str]] = {"content-type": "application/json"}


class ChatError(Exception):
    """The Workspace cannot answer; the message contains the cause and the remedy."""


@dataclass(slots=True)
class Answer:
    """The pieces of an answer so far."""

    text: str = ""
    tokens: int = 0
    """Tokens by the server's count, or the number of pieces until it is known."""
    finish_reason: str = ""
    prompt_tokens: int | None = None
    """Tokens of the conversation by the server's count; None until they are known."""
    is_counted: bool = False
    """Whether `tokens` is the server's count."""


@final
@dataclass(frozen=True, slots=True)
class ChatEndpoint:
    """The OpenAI routes of one Workspace."""

    transport: HttpTransport
    base: str
    """Path in front of the routes."""
    what: str
    """Name of the Workspace in messages."""

    async def models(self) -> list[str]:
        """Returns the accepted values of `model`; the first is the served name.

        Raises:
            ChatError: the server does not answer, or does not serve the OpenAI routes.
        """
        async with self.transport.stream("GET", f"{self.base}/v1/models", idle=MODELS_SECONDS) as reply:
            body = await _read(reply)
        if reply.status != 200:
            raise ChatError(f"{self.what}: {_problem(reply.status, body)}")
        try:
            models = json_list(json_object(json.loads(body)).get("data"))
        except (ValueError, RecursionError) as error:
            raise ChatError(f"{self.what}: the response to /v1/models is not JSON") from error
        found = [str(name) for model in models if (name := json_object(model).get("id"))]
        if not found:
            raise ChatError(f"{self.what}: the server reports no model in /v1/models")
        return found

    async def stream(
        self, model: str, messages: Sequence[Message], options: Mapping[str, Any], answer: Answer
    ) -> AsyncGenerator[str]:
        """Streams the answer to a conversation; adds each piece to `answer` before it is yielded.

        Raises:
            ChatError: the server refused the request or failed.
        """
        body = {"model": model, "messages": list(messages), "stream": True, **options}
        body["stream_options"] = {"include_usage": True}
        async with self.transport.stream(
            "POST", f"{self.base}/v1/chat/completions", headers=_JSON, body=json.dumps(body).encode(),
            idle=ANSWER_SECONDS, header_seconds=ANSWER_SECONDS,
        ) as reply:  # fmt: skip
            if reply.status != 200:
                raise ChatError(_problem(reply.status, await _read(reply)))
            pieces = 0
            async for event in _events(reply):
                if "error" in event:
                    raise ChatError(_message(event) or "the server failed")
                for choice in map(json_object, json_list(event.get("choices"))):
                    answer.finish_reason = str(choice.get("finish_reason") or answer.finish_reason)
                    text = str(json_object(choice.get("delta")).get("content") or "")
                    if text:
                        pieces += 1
                        answer.text += text
                        answer.tokens = pieces
                        yield text
                usage = json_object(event.get("usage"))
                if usage:
                    answer.tokens = _count(usage.get("completion_tokens")) or answer.tokens
                    answer.prompt_tokens = _count(usage.get("prompt_tokens"))
                    answer.is_counted = True


async def find_endpoint(client: Client, transport: HttpTransport, name: str, namespace: str) -> ChatEndpoint:
    """Returns the endpoint of a Workspace that serves a model.

    Raises:
        ChatError: the Workspace does not exist, serves no model, or is not ready.
    """
    workspace = await client.find(Workspace, name, namespace)
    if workspace is None:
        names = sorted(other.name for other in await client.list(Workspace, namespace=namespace))
        known = f"the namespace has: {', '.join(names)}" if names else "the namespace has none"
        raise ChatError(f"Workspace {namespace}/{name} does not exist; {known} (another namespace: -n)")
    if workspace.tuning is not None:
        raise ChatError(f"Workspace {workspace.key} tunes a model and serves none")
    if problem := not_ready(workspace):
        step = f"what to do: kaito explain {name} -n {namespace}"
        raise ChatError(f"Workspace {workspace.key} is not ready: {problem}; {step}")
    address = await _local_address(client, workspace)
    if address:
        direct = HttpTransport(ClusterConfig(server=f"http://{address}:{SERVER_PORT}", credentials=NoCredentials()))
        return ChatEndpoint(direct, "", str(workspace.key))
    base = f"/api/v1/namespaces/{namespace}/services/http:{name}:80/proxy"
    return ChatEndpoint(transport, base, str(workspace.key))


def not_ready(workspace: Workspace) -> str:
    """Returns the condition because of which the Workspace does not answer; empty if it is ready.

    ResourceReady comes first: without nodes, InferenceReady reports only that it waits for them.
    """
    present = workspace.status.conditions
    inference = find_condition(present, conditions.INFERENCE_READY)
    if inference is not None and inference.is_true:
        return ""
    for name in (conditions.WORKSPACE_DELETING, conditions.RESOURCE_READY, conditions.INFERENCE_READY):
        found = find_condition(present, name)
        wrong = found is not None and (found.is_true if name == conditions.WORKSPACE_DELETING else not found.is_true)
        if found is not None and wrong:
            return f"{name} is {found.status} ({found.reason}){f': {found.message}' if found.message else ''}"
    return f"it has no condition {conditions.INFERENCE_READY} yet; is the workspace-controller running?"


async def _local_address(client: Client, workspace: Workspace) -> str:
    """Returns the address of a ready pod of a local cluster; empty in other clusters."""
    try:
        service = await client.find(Service, workspace.name, workspace.namespace)
        if service is None or not is_loopback(service.spec.cluster_ip):
            return ""
        pods = await client.list(Pod, namespace=workspace.namespace, labels=pod_labels(workspace))
    except Forbidden:
        return ""
    return next((pod.status.pod_ip for pod in pods if pod.is_ready and pod.status.pod_ip), "")


def is_loopback(address: str | None) -> bool:
    """Whether an address is one of this machine's loopback network, as in `kaito up`."""
    try:
        return ip_address(address or "").is_loopback
    except ValueError:
        return False


async def _read(reply: StreamReply) -> bytes:
    """Returns a body. The server may be the user's: one that is too long is an error.

    Raises:
        ChatError: it is too long.
    """
    body = bytearray()
    async for chunk in reply.chunks():
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            raise ChatError(f"the response of the server has more than {MAX_RESPONSE_BYTES >> 20} MiB")
    return bytes(body)


async def _events(reply: StreamReply) -> AsyncGenerator[dict[str, Any]]:
    """Yields the objects of a stream of server-sent events."""
    rest = b""
    async for chunk in reply.chunks():
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_RESPONSE_BYTES:
            raise ChatError("the server sent an event that does not end")
        for line in lines:
            data = line.strip().removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
            if data == b"[DONE]":
                return
            if data:
                try:
                    yield json_object(json.loads(data))
                except (ValueError, RecursionError) as error:
                    raise ChatError(f"the server sent an event that is not JSON: {data[:80]!r}") from error


def _count(value: object) -> int | None:
    """Returns a number of tokens; None for 0, and for what is not a number: the server may be the user's."""
    return int(value) if isinstance(value, int | float) and 0 < value < MAX_RESPONSE_BYTES else None


def _problem(status: int, body: bytes) -> str:
    """Describes an error response of the server, or of the API server in front of it (a Kubernetes Status)."""
    try:
        document = json_object(json.loads(body))
    except (ValueError, RecursionError):
        document = {}
    message = _message(document) or body[:200].decode(errors="replace").strip()
    if status == 403 and document.get("kind") == "Status":
        return f"{message} (your account needs the permission for the subresource services/proxy)"
    if status == 404 and document.get("kind") != "Status" and "model" not in message:
        return f"the server has no OpenAI routes: {message}"
    return f"{message} (HTTP {status})"


def _message(document: Mapping[str, Any]) -> str:
    error = document.get("error")
    return str(json_object(error).get("message") or error or document.get("message") or "")
