"""Creates, resets and watches the benchmarks' objects on a real API server, and reads its request counts.

Uses plain HTTP instead of the framework's client, so that measuring and measured code are independent.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, final

import aiohttp
import yaml

from kaito.runtime.tasks import together

PAYLOAD = "x" * 900
"""Payload of an object that has 1 KB in total."""
CONCURRENCY = 32
TIMEOUT_SECONDS = 300.0
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
LABEL = "bench=yes"
"""Label of every object, selected by every peer."""

KOPF_STATE = "kopf.zalando.org/last-handled-configuration"
"""Annotation of kopf's retrying handlers; removed before the next peer runs."""

_COUNT = re.compile(r"^apiserver_request_total\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def name_of(index: int) -> str:
    """Returns the name of an object."""
    return f"c{index:05d}"


@final
class Cluster:
    """The objects of a benchmark on a running control plane."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._server = url
        self._session = session

    async def create(self, count: int, labels: Callable[[int], Mapping[str, str]] | None = None) -> None:
        """Creates ConfigMaps that are not in their desired state; `labels` are added to the common one."""

        async def one(index: int) -> None:
            more = labels(index) if labels is not None else dict[str, str]()
            metadata = {"name": name_of(index), "labels": {"bench": "yes", **more}}
            await self.post(
                CONFIG_MAPS, {"metadata": metadata, "data": {"payload": PAYLOAD, "want": "0", "done": "never"}}
            )

        await each(count, one)

    async def reset(self, count: int, token: str) -> None:
        """Sets a new `want` on every object, and removes a peer's annotations."""
        body = json.dumps({"metadata": {"annotations": {KOPF_STATE: None}}, "data": {"want": token, "sent": None}})

        async def one(index: int) -> None:
            await self.patch(index, body)

        await each(count, one)

    async def post(self, path: str, body: Mapping[str, Any]) -> None:
        """Creates one object of any kind."""
        async with self._session.post(self._server + path, json=body) as answer:
            await _check(answer)

    async def patch(self, index: int, body: str) -> None:
        """Merges JSON into one ConfigMap."""
        url = f"{self._server}{CONFIG_MAPS}/{name_of(index)}"
        headers = {"Content-Type": "application/merge-patch+json"}
        async with self._session.patch(url, data=body, headers=headers) as answer:
            await _check(answer)
            await answer.read()

    async def version(self) -> str:
        """Returns a resource version to watch from."""
        async with self._session.get(self._server + CONFIG_MAPS, params={"limit": "1"}) as answer:
            await _check(answer)
            return str((await answer.json())["metadata"]["resourceVersion"])

    async def watch(self, version: str = "") -> AsyncGenerator[dict[str, Any]]:
        """Yields every ConfigMap that changes after a version; without a version, all existing ConfigMaps first."""
        query = {"watch": "true", "labelSelector": LABEL} | ({"resourceVersion": version} if version else {})
        async with self._session.get(self._server + CONFIG_MAPS, params=query) as answer:
            await _check(answer)
            async for line in lines(answer.content):
                yield json.loads(line)["object"]

    async def until_done(self, count: int, token: str, version: str) -> None:
        """Waits until every object's `done` is the token.

        Raises:
            TimeoutError: it takes too long; the message contains the number of remaining objects.
        """
        pending = {name_of(index) for index in range(count)}
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                async for item in self.watch(version):
                    if item["data"].get("done") == token:
                        pending.discard(item["metadata"]["name"])
                    if not pending:
                        return
        except TimeoutError as error:
            message = f"{len(pending)} of {count} objects were not done within {TIMEOUT_SECONDS:g} s"
            raise TimeoutError(message) from error

    async def requests(self) -> dict[str, int]:
        """Returns how many requests for ConfigMaps the API server has finished since its start, by verb."""
        async with self._session.get(f"{self._server}/metrics") as answer:
            await _check(answer)
            text = await answer.text()
        counts: dict[str, int] = {}
        for text_labels, value in _COUNT.findall(text):
            labels = dict(_LABEL.findall(text_labels))
            if labels.get("resource") == "configmaps" and labels.get("code", "").startswith("2"):
                counts[labels["verb"]] = counts.get(labels["verb"], 0) + int(float(value))
        return counts


async def _check(answer: aiohttp.ClientResponse) -> None:
    if answer.status >= 400:
        message = f"{answer.method} {answer.url.path}: {answer.status} {(await answer.text())[:300]}"
        raise RuntimeError(message)


async def each(count: int, action: Callable[[int], Awaitable[None]]) -> None:
    """Calls the action for each index below `count`, at most `CONCURRENCY` at a time."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await action(number)

    await together(*(work() for _ in range(min(CONCURRENCY, count))))


async def lines(stream: aiohttp.StreamReader) -> AsyncGenerator[bytes]:
    """Yields the lines of a response body as they arrive."""
    rest = b""
    async for chunk in stream.iter_any():
        *complete, rest = (rest + chunk).split(b"\n")
        for line in complete:
            if line:
                yield line


@asynccontextmanager
async def connected(kubeconfig: Path) -> AsyncGenerator[Cluster]:
    """Connects to the cluster of a kubeconfig."""
    config = yaml.safe_load(kubeconfig.read_text())  # noqa: ASYNC240 -- a small file
    server, token = config["clusters"][0]["cluster"]["server"], config["users"][0]["user"]["token"]
    headers = {"Authorization": f"Bearer {token}"}
    limit, timeout = aiohttp.TCPConnector(limit=64, ssl=False), aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(headers=headers, connector=limit, timeout=timeout) as session:
        yield Cluster(server, session)
