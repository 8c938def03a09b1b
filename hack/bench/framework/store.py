"""Measures the cost of a cached object by representation: memory, filling, reading in isolation, garbage collection.

    python -m hack.bench store [--objects 10000]

Each representation holds the same pods in a fresh process, because resident memory is only comparable there. `isolated`
reads return a separate object to every caller, as the cache guarantees; `shared` reads do not.

* bytes: the cache's own `Store`: stripped JSON text and a header, decoded on read.
* bytes+lru: the same, with the last 1,024 decoded objects kept and shared.
* frozen: pydantic models, shared; isolated reads copy deeply.
* dict: stripped dictionaries, shared; isolated reads copy deeply and validate.
"""

import argparse
import copy
import gc
import json
import random
import statistics
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from hack.bench.report import Column, Report
from kaito.runtime.cache.entry import decode, make_entry
from kaito.runtime.cache.jsontext import cuts
from kaito.runtime.cache.store import Store
from kaito.runtime.kinds import Pod
from kaito.runtime.meta import LabelSelector, LabelSelectorRequirement, ObjectKey

DROP = cuts((("metadata", "managedFields"),))
WORKSPACES = 100
LRU_OBJECTS = 1024
ROUNDS = 5


def _managed_fields() -> list[dict[str, Any]]:
    """Managed fields of two managers."""
    return [
        {
            "manager": manager,
            "operation": "Update",
            "apiVersion": "v1",
            "time": "2030-01-01T00:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {f"f:{part}": {f"f:{name}": {} for name in names} for part in ("metadata", "spec", "status")},
        }
        for manager, names in (
            ("kube-controller-manager", ["containers", "labels", "ownerReferences", "restartPolicy", "tolerations"]),
            ("kubelet", ["conditions", "containerStatuses", "hostIP", "phase", "podIP", "podIPs", "startTime"]),
        )
    ] * 2


def _container() -> dict[str, Any]:
    return {
        "name": "server",
        "image": "registry.example.com/kaito/phi-3-mini-4k-instruct:0.0.1",
        "command": ["/bin/sh", "-c", "accelerate launch --num_processes 1 inference_api.py --pipeline text-generation"],
        "env": [{"name": f"SETTING_{index}", "value": f"value of setting {index}"} for index in range(12)],
        "resources": {"limits": {"nvidia.com/gpu": "1", "memory": "64Gi"}, "requests": {"cpu": "4", "memory": "32Gi"}},
        "volumeMounts": [{"name": f"volume-{index}", "mountPath": f"/mnt/volume-{index}"} for index in range(5)],
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": 5000, "scheme": "HTTP"}, "periodSeconds": 10},
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 5000, "scheme": "HTTP"}, "periodSeconds": 10},
    }


def pod(number: int) -> bytes:
    """Returns a pod as an API server sends it: about 6 KiB, a third of it managedFields."""
    workspace, container = f"workspace-{number % WORKSPACES}", _container()
    metadata: dict[str, Any] = {
        "name": f"{workspace}-{number}",
        "namespace": f"team-{number % 20}",
        "uid": f"00000000-0000-4000-8000-{number:012}",
        "resourceVersion": str(1_000_000 + number),
        "generation": 1,
        "creationTimestamp": "2030-01-01T00:00:00Z",
        "labels": {
            "kaito.sh/workspace": workspace,
            "app": "inference",
            "statefulset.kubernetes.io/pod-name": str(number),
        },
        "annotations": {"example.com/checksum": "0123456789abcdef" * 4},
        "ownerReferences": [
            {
                "apiVersion": "apps/v1",
                "kind": "StatefulSet",
                "name": workspace,
                "uid": f"uid-{workspace}",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
        "managedFields": _managed_fields(),
    }
    kinds = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    moment = "2030-01-01T00:00:00Z"
    status: dict[str, Any] = {
        "phase": "Running",
        "podIP": f"10.0.{number // 256 % 256}.{number % 256}",
        "hostIP": "10.1.0.1",
        "startTime": moment,
        "conditions": [{"type": kind, "status": "True", "lastTransitionTime": moment} for kind in kinds],
        "containerStatuses": [
            {
                "name": "server",
                "ready": True,
                "restartCount": 0,
                "image": container["image"],
                "imageID": "sha256:0",
                "state": {"running": {"startedAt": moment}},
            }
        ],
    }
    tolerations = [
        {"key": f"example.com/taint-{index}", "operator": "Exists", "effect": "NoSchedule"} for index in range(4)
    ]
    spec: dict[str, Any] = {
        "nodeName": f"node-{number % 500}",
        "restartPolicy": "Always",
        "serviceAccountName": "default",
        "tolerations": tolerations,
        "volumes": [{"name": f"volume-{index}", "emptyDir": {"medium": "Memory"}} for index in range(5)],
        "containers": [container],
    }
    document: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}
    return msgspec.json.encode(document)


class Held(Protocol):
    """One representation of a store."""

    def put(self, text: bytes) -> None:
        """Stores an object as the server sent it."""
        ...

    def read(self, key: ObjectKey) -> object:
        """One object, private to the caller."""
        ...

    def shared(self, key: ObjectKey) -> object:
        """One object, shared."""
        ...

    def select(self, selector: LabelSelector) -> list[object]:
        """The objects with the labels, private to the caller."""
        ...


class AsBytes:
    """`bytes`: the cache's representation."""

    def __init__(self) -> None:
        self.store = Store()

    def put(self, text: bytes) -> None:
        self.store.put(make_entry(text, DROP))

    def read(self, key: ObjectKey) -> object:
        entry = self.store.get(key)
        return decode(entry, Pod) if entry is not None else None

    def shared(self, key: ObjectKey) -> object:
        return self.read(key)

    def select(self, selector: LabelSelector) -> list[object]:
        return [decode(entry, Pod) for entry in self.store if selector.matches(entry.header.labels)]


class AsBytesWithLru(AsBytes):
    """`bytes+lru`: recently decoded objects are kept, and shared."""

    def __init__(self) -> None:
        super().__init__()
        self.recent: OrderedDict[ObjectKey, object] = OrderedDict()

    def shared(self, key: ObjectKey) -> object:
        found = self.recent.get(key)
        if found is None:
            found = self.recent[key] = self.read(key)
            if len(self.recent) > LRU_OBJECTS:
                self.recent.popitem(last=False)
        else:
            self.recent.move_to_end(key)
        return found


class AsFrozen:
    """`frozen`: decoded when stored."""

    def __init__(self) -> None:
        self.store: dict[ObjectKey, Pod] = {}

    def put(self, text: bytes) -> None:
        found = decode(make_entry(text, DROP), Pod)
        self.store[found.key] = found

    def read(self, key: ObjectKey) -> object:
        return self.store[key].model_copy(deep=True)

    def shared(self, key: ObjectKey) -> object:
        return self.store[key]

    def select(self, selector: LabelSelector) -> list[object]:
        return [found.model_copy(deep=True) for found in self.store.values() if selector.matches(found.labels)]


class AsDict:
    """`dict`: the representation of generic clients."""

    def __init__(self) -> None:
        self.store: dict[ObjectKey, dict[str, Any]] = {}

    def put(self, text: bytes) -> None:
        found: dict[str, Any] = msgspec.json.decode(text)
        del found["metadata"]["managedFields"]
        self.store[ObjectKey(found["metadata"]["namespace"], found["metadata"]["name"])] = found

    def read(self, key: ObjectKey) -> object:
        return Pod.model_validate(copy.deepcopy(self.store[key]))

    def shared(self, key: ObjectKey) -> object:
        return self.store[key]

    def select(self, selector: LabelSelector) -> list[object]:
        chosen = [found for found in self.store.values() if selector.matches(found["metadata"]["labels"])]
        return [Pod.model_validate(copy.deepcopy(found)) for found in chosen]


REPRESENTATIONS: dict[str, Callable[[], Held]] = {
    "bytes": AsBytes,
    "bytes+lru": AsBytesWithLru,
    "frozen": AsFrozen,
    "dict": AsDict,
}


def resident_kib() -> int:
    """Resident memory of this process (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError("no VmRSS in /proc/self/status")


def timed(work: Callable[[], object]) -> float:
    """Returns the median CPU seconds of a few rounds, which other work on the machine does not affect."""
    rounds: list[float] = []
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        rounds.append(time.process_time() - started)
    return statistics.median(rounds)


def each(read: Callable[[ObjectKey], object], keys: Sequence[ObjectKey]) -> None:
    """Reads all objects in sequence, without references to earlier ones, like reconciles."""
    for key in keys:
        read(key)


def measure(name: str, count: int) -> dict[str, float]:
    """Measures one representation in this process."""
    held = REPRESENTATIONS[name]()
    warm = pod(0)
    held.put(warm)
    gc.collect()
    before = resident_kib()
    started = time.process_time()
    making = 0.0
    for number in range(count):
        made = time.process_time()
        text = pod(number)
        making += time.process_time() - made
        held.put(text)
    filling = time.process_time() - started - making
    gc.collect()
    grown = resident_kib() - before
    keys = [ObjectKey(f"team-{n % 20}", f"workspace-{n % WORKSPACES}-{n}") for n in range(count)]
    rng = random.Random(1)  # noqa: S311 -- a benchmark
    some = rng.sample(keys, min(1000, count))
    tenth = LabelSelector(
        match_expressions=[
            LabelSelectorRequirement(
                key="kaito.sh/workspace",
                operator="In",
                values=[f"workspace-{number}" for number in range(WORKSPACES // 10)],
            )
        ]
    )
    return {
        "object_bytes": len(warm),
        "rss_kib_per_object": round(grown / count, 2),
        "store_us": round(filling / count * 1e6, 1),
        "read_isolated_us": round(timed(lambda: each(held.read, some)) / len(some) * 1e6, 1),
        "read_shared_us": round(timed(lambda: each(held.shared, some)) / len(some) * 1e6, 1),
        "list_tenth_ms": round(timed(lambda: held.select(tenth)) * 1e3, 1),
        "gc_full_ms": round(timed(gc.collect) * 1e3, 1),
    }


COLUMNS = (
    Column("rss_kib_per_object", "RSS per object", "{:.1f} KiB"),
    Column("store_us", "store one", "{:.0f} µs"),
    Column("read_isolated_us", "read one, isolated", "{:.0f} µs"),
    Column("read_shared_us", "read one, shared", "{:.1f} µs"),
    Column("list_tenth_ms", "list a tenth by label, isolated", "{:.0f} ms"),
    Column("gc_full_ms", "full garbage collection", "{:.0f} ms"),
)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench store", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--only", choices=list(REPRESENTATIONS), help="this one, in this process")
    return parser.parse_args(arguments)


def benchmark(arguments: Sequence[str]) -> list[Report]:
    """Measures each representation in a separate process."""
    options = _parsed(arguments)
    rows: dict[str, dict[str, float]] = {}
    for name in [options.only] if options.only else REPRESENTATIONS:
        command = [
            sys.executable,
            "-m",
            "hack.bench.framework.store",
            "--only",
            name,
            "--objects",
            str(options.objects),
        ]
        rows[name] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return [
        Report(
            name="store",
            about=f"{options.objects:,} pods in the cache, by representation; CPU time, medians of {ROUNDS}",
            settings={"objects": options.objects, "rounds": ROUNDS},
            columns=COLUMNS,
            rows=rows,
        )
    ]


if __name__ == "__main__":
    alone = _parsed(None)
    print(json.dumps(measure(alone.only, alone.objects)))
