"""The peer on kopf; `hack.bench.framework.peers` defines how it is started and what it prints.

| mode         | what it is                                                                                     |
|--------------|------------------------------------------------------------------------------------------------|
| copy         | sets `data.done` to `data.want` from `on.event`: kopf's lightest handler, whose errors are dropped |
| copy-retried | the same from `on.create`, `on.update` and `on.resume`, which kopf retries when they raise      |
| sync         | keeps every ConfigMap whole, in a dictionary filled from `on.event`                             |
| latency      | measures the time since a change was sent, from `on.event`
|

No events are posted. No worker limit either: kopf's workers linger for five seconds, so ten of them would starve.
"""

import argparse
import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import kopf
import yaml

from hack.bench.framework.protocol import Latencies, collect_on_signal, emit
from kaito.runtime.tasks import TaskScope

KIND = ("", "v1", "configmaps")
STARTED = time.monotonic()

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("mode", choices=("copy", "copy-retried", "sync", "latency"))
parser.add_argument("kubeconfig", type=Path)
parser.add_argument("--labels", default="bench=yes")
parser.add_argument("--namespace", default="default", help="kopf selects labels itself, after fetching everything")
parser.add_argument("--expect", type=int, default=0, help="objects there are: kopf does not tell when it has seen all")
options = parser.parse_args()
label, _, value = options.labels.partition("=")
LABELS = {label: value}

latencies = Latencies()
calls: Counter[str] = Counter()
seen: set[str] = set()
held: dict[str, dict[str, Any]] = {}


@kopf.on.startup()
async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.posting.enabled = False
    collect_on_signal()


@kopf.on.login()
def login(**_: Any) -> kopf.ConnectionInfo:
    """The first cluster and user of the kubeconfig."""
    config = yaml.safe_load(options.kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    token = config["users"][0]["user"]["token"]
    return kopf.ConnectionInfo(server=cluster["server"], ca_path=cluster["certificate-authority"], token=token)


def count(name: str | None) -> None:
    """Prints `synced` when every expected object has been received."""
    if len(seen) < options.expect:
        seen.add(name or "")
        if len(seen) == options.expect:
            emit("synced", seconds=time.monotonic() - STARTED, objects=len(seen))


async def copy(body: kopf.Body, patch: kopf.Patch, **_: Any) -> None:
    """Sets the patch, which kopf sends after the handler."""
    calls["copy"] += 1
    want = body["data"].get("want")
    if body["data"].get("done") != want:
        patch.setdefault("data", {})["done"] = want


async def look(body: kopf.Body, name: str | None, **_: Any) -> None:
    """Keeps the time since the change was sent."""
    latencies.record(name or "", body["data"].get("sent"))
    count(name)


async def hold(body: kopf.Body, name: str | None, **_: Any) -> None:
    """Keeps the whole object."""
    held[name or ""] = dict(body)
    count(name)


if options.mode == "copy":
    kopf.on.event(*KIND, labels=LABELS)(copy)
elif options.mode == "copy-retried":
    kopf.on.create(*KIND, labels=LABELS)(copy)
    kopf.on.update(*KIND, labels=LABELS)(copy)
    kopf.on.resume(*KIND, labels=LABELS)(copy)
elif options.mode == "latency":
    kopf.on.event(*KIND, labels=LABELS)(look)
else:
    kopf.on.event(*KIND, labels=LABELS)(hold)


async def main() -> None:
    """Runs until a signal."""
    ready = asyncio.Event()

    async def announce() -> None:
        await ready.wait()
        emit("synced", seconds=time.monotonic() - STARTED, objects=0)

    async with TaskScope("peer") as scope:
        if not options.expect:
            scope.spawn(announce(), name="announce")
        await kopf.operator(namespaces=[options.namespace], standalone=True, ready_flag=ready)
    emit("end", reconciles=calls["copy"], nanoseconds=latencies.nanoseconds)


asyncio.run(main())
