"""Canned answers of the console's API, in the shapes that the browser side expects."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import yaml

from kaito.api.crds import workspace_crd

Json = dict[str, Any]

REFERENCE: Final = datetime.now(UTC).replace(microsecond=0)


def ago(seconds: float) -> str:
    """Returns the time before the start of the tests as RFC 3339 text; negative for the future."""
    return (REFERENCE - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


SESSION: Final[Mapping[str, Any]] = {
    "version": "0.1.0",
    "mode": "local",
    "cluster": "kaito up on this machine",
    "user": "admin",
    "writes": True,
    "namespaces": ["default", "team-a", "team-b"],
    "trouble": [
        {
            "id": "quota",
            "label": "No quota",
            "explains": "The cloud refuses new nodes until the quota is raised again.",
            "target": "none",
        },
        {
            "id": "stockout",
            "label": "No capacity",
            "explains": "The region has no machine of this instance type for two minutes.",
            "target": "workspace",
        },
        {
            "id": "eviction",
            "label": "Spot eviction",
            "explains": "The cloud takes the node back, with a warning of 30 seconds.",
            "target": "node",
        },
        {
            "id": "node-lost",
            "label": "Node lost",
            "explains": "The node stops reporting, as after a hardware fault.",
            "target": "node",
        },
        {
            "id": "kill-pod",
            "label": "Kill the pod",
            "explains": "The process of the model ends at once.",
            "target": "pod",
        },
    ],
}

_MODELS: Final = (
    ("phi-3-mini-4k-instruct", "phi", "MIT", 3.82e9, 4096, True, False),
    ("phi-3-mini-128k-instruct", "phi", "MIT", 3.82e9, 131072, True, False),
    ("phi-3-medium-128k-instruct", "phi", "MIT", 13.96e9, 131072, True, False),
    ("phi-4", "phi", "MIT", 14.7e9, 16384, True, False),
    ("phi-4-mini-instruct", "phi", "MIT", 3.84e9, 131072, True, False),
    ("falcon-7b-instruct", "falcon", "Apache-2.0", 7.22e9, 2048, True, False),
    ("falcon-40b-instruct", "falcon", "Apache-2.0", 41.8e9, 2048, True, False),
    ("mistral-7b-instruct", "mistral", "Apache-2.0", 7.25e9, 32768, True, False),
    ("ministral-3-3b-instruct", "mistral", "Apache-2.0", 3.4e9, 262144, False, False),
    ("qwen2.5-coder-7b-instruct", "qwen", "Apache-2.0", 7.62e9, 32768, True, False),
    ("qwen2.5-coder-32b-instruct", "qwen", "Apache-2.0", 32.8e9, 32768, False, False),
    ("deepseek-r1-distill-llama-8b", "deepseek", "MIT", 8.03e9, 131072, False, False),
    ("deepseek-r1-0528", "deepseek", "MIT", 671e9, 163840, False, False),
    ("llama-3.1-8b-instruct", "llama", "Llama-3.1", 8.03e9, 131072, False, True),
    ("llama-3.3-70b-instruct", "llama", "Llama-3.3", 70.6e9, 131072, False, True),
    ("gpt-oss-20b", "gpt-oss", "Apache-2.0", 20.9e9, 131072, False, False),
    ("gemma-3-4b-instruct", "gemma", "Gemma", 4.3e9, 131072, False, True),
)
_TYPES: Final = (
    ("Standard_NC6s_v3", 1, "NVIDIA V100", 16, 3.06),
    ("Standard_NC24ads_A100_v4", 1, "NVIDIA A100", 80, 3.673),
    ("Standard_NC48ads_A100_v4", 2, "NVIDIA A100", 80, 7.346),
    ("Standard_NC40ads_H100_v5", 1, "NVIDIA H100", 94, 6.98),
    ("Standard_ND96isr_H100_v5", 8, "NVIDIA H100", 80, 98.32),
    ("Standard_NV36ads_A10_v5", 1, "NVIDIA A10", 24, None),
)


def catalog() -> Json:
    """Returns the answer of /api/catalog."""
    return {
        "models": [
            {
                "name": name,
                "family": family,
                "license": license_name,
                "parameters": int(size),
                "context": context,
                "sizeBytes": int(size * 2),
                "tuning": tuning,
                "runtime": ["vllm", "transformers"],
                "gated": gated,
            }
            for name, family, license_name, size, context, tuning, gated in _MODELS
        ],
        "instanceTypes": [
            {"name": name, "gpus": gpus, "gpuModel": gpu, "gpuMemoryGiB": memory, "hourly": price}
            for name, gpus, gpu, memory, price in _TYPES
        ],
    }


def schema() -> Json:
    """Returns the answer of /api/schema: the real schema of the served version."""
    version = workspace_crd()["spec"]["versions"][-1]
    return dict(version["schema"]["openAPIV3Schema"])


def row(name: str, state: str = "ready", **fields: Any) -> Json:
    """Returns the row of a Workspace."""
    ready = state in {"ready", "succeeded"}
    summaries = {
        "ready": "answers at http://10.0.31.7",
        "succeeded": "the adapter is pushed",
        "progressing": "waits for its node",
        "failing": "waits for quota",
        "deleting": "its node is being returned",
        "stopped": "no copies are wanted",
    }
    return {
        "namespace": "default",
        "name": name,
        "uid": f"uid-{name}",
        "task": "inference",
        "state": state,
        "serving": state == "ready",
        "model": "phi-3-mini-4k-instruct",
        "instanceType": "Standard_NC6s_v3",
        "copies": {"wanted": 1, "ready": int(ready)},
        "nodes": {"wanted": 1, "ready": int(ready)},
        "summary": summaries[state],
        "reason": {"failing": "QuotaExceeded", "progressing": "NodeNotReady"}.get(state),
        "since": ago(760),
        "created": ago(1500),
        "hourlyCost": 3.06 if ready else 0.0,
        "currency": "USD",
        **fields,
    }


def rows() -> list[Json]:
    """Returns one Workspace of each state and kind."""
    return [
        row("phi", "ready", since=ago(5400), created=ago(5900)),
        row(
            "support-bot",
            "failing",
            namespace="team-a",
            model="mistral-7b-instruct",
            instanceType="Standard_NC24ads_A100_v4",
            summary="Standard_NC24ads_A100_v4: quota of 24 vCPUs is used up in eastus",
            since=ago(192),
            created=ago(402),
        ),
        row(
            "coder",
            "progressing",
            namespace="team-a",
            model="qwen2.5-coder-32b-instruct",
            instanceType="Standard_NC48ads_A100_v4",
            copies={"wanted": 2, "ready": 1},
            nodes={"wanted": 2, "ready": 1},
            serving=True,
            summary="1 of 2 copies answers, the second loads its weights",
            reason="WeightsLoading",
            since=ago(74),
            created=ago(9000),
            hourlyCost=14.692,
        ),
        row(
            "house-style",
            "progressing",
            namespace="team-b",
            task="tuning",
            copies=None,
            model="phi-3-mini-128k-instruct",
            summary="step 240 of 400, loss 1.412",
            reason=None,
            hourlyCost=3.06,
            nodes={"wanted": 1, "ready": 1},
        ),
        row("old-experiment", "stopped", namespace="team-b", nodes={"wanted": 0, "ready": 0}, created=ago(700000)),
        row("falcon", "deleting", namespace="team-b", model="falcon-7b-instruct"),
        row(
            "faq-adapter",
            "succeeded",
            namespace="team-b",
            task="tuning",
            copies=None,
            hourlyCost=None,
            nodes={"wanted": 0, "ready": 0},
            created=ago(90000),
            since=ago(86000),
        ),
    ]


def many(count: int) -> list[Json]:
    """Returns rows of a large cluster."""
    states = ("ready", "ready", "ready", "ready", "ready", "progressing", "failing", "stopped", "ready", "deleting")
    found: list[Json] = []
    for index in range(count):
        name, *_ = _MODELS[index % len(_MODELS)]
        instance, _, _, _, price = _TYPES[index % len(_TYPES)]
        state = states[index % len(states)]
        found.append(
            row(
                f"model-{index:04}",
                state,
                namespace=f"team-{index % 12:02}",
                model=name,
                instanceType=instance,
                hourlyCost=price if state == "ready" else 0.0,
            )
        )
    return found


def money(found: Sequence[Json]) -> Json:
    """Returns the answer of /api/money for some rows."""
    total = sum(one["hourlyCost"] or 0 for one in found)
    spaces = sorted({one["namespace"] for one in found})
    return {
        "hourly": round(total, 3),
        "idleHourly": 3.06,
        "accumulated": 187.35,
        "currency": "USD",
        "unknownNodes": 1,
        "byNamespace": [
            {
                "namespace": space,
                "hourly": round(sum(one["hourlyCost"] or 0 for one in found if one["namespace"] == space), 3),
            }
            for space in spaces
        ],
        "useless": [
            {
                "node": "aks-ws1b7c9d2f4-00000",
                "reason": "no pod of a Workspace has run on it for 42 min",
                "hourly": 3.06,
                "workspace": "team-b/falcon",
            }
        ],
        "history": [
            [ago(6 * 3600 - index * 300), round(total * (0.55 + 0.45 * ((index // 9) % 5) / 4), 3)]
            for index in range(72)
        ],
        "quota": [
            {"family": "Standard NCASv3 T4 Family vCPUs", "used": 6, "limit": 24},
            {"family": "Standard NCADSA100v4 Family vCPUs", "used": 96, "limit": 96},
            {"family": "Standard NCADSH100v5 Family vCPUs", "used": 0, "limit": 40},
        ],
    }


def _part(kind: str, name: str, state: str, summary: str, seconds: float, event: Json | None = None) -> Json:
    return {
        "kind": kind,
        "name": name,
        "state": state,
        "summary": summary,
        "since": ago(seconds),
        "created": ago(seconds + 20),
        "event": event,
    }


def _event(reason: str, note: str, seconds: float, *, warning: bool = False, count: int = 1) -> Json:
    return {"reason": reason, "note": note, "warning": warning, "at": ago(seconds), "count": count}


def _bars(created: float, durations: Sequence[tuple[str, float, str]], running: bool) -> list[Json]:
    at = created
    found: list[Json] = []
    for index, (label, seconds, detail) in enumerate(durations):
        last = running and index == len(durations) - 1
        end = None if last else ago(at - seconds)
        found.append(
            {"label": label, "start": ago(at), "end": end, "state": "running" if last else "done", "detail": detail}
        )
        at -= seconds
    return found


_START: Final = (
    ("claim", 2.4, ""),
    ("instance", 128.0, "the cloud starts the machine"),
    ("node", 41.0, ""),
    ("pod scheduled", 3.0, ""),
    ("image", 64.0, "4.1 GiB"),
    ("weights", 88.0, "7.1 GiB, from the node cache"),
    ("server start", 22.0, ""),
)


def _chain(one: Json) -> list[Json]:
    name, state = one["name"], one["state"]
    claim, node = "ws6f1a9c042", "aks-ws6f1a9c042-00000"
    if state == "failing":
        return [
            _part("Workspace", name, "failed", "ResourceReady=False QuotaExceeded", 192),
            _part(
                "Machine",
                claim,
                "failed",
                f"{one['instanceType']}, MachineLaunched=False QuotaExceeded",
                192,
                _event("QuotaExceeded", "launch attempt 3 failed: see the cause", 40, warning=True, count=3),
            ),
            _part("AgentPool", claim, "absent", "does not exist, 3 failed attempts", 192),
            _part("Node", "", "absent", "1 of 1 have not joined", 400),
            _part("StatefulSet", name, "absent", "does not exist yet", 400),
            _part("Server", name, "waiting", f"http://{name}.{one['namespace']}.svc does not answer", 400),
        ]
    waits = state == "progressing"
    kind = "Job" if one["task"] == "tuning" else "StatefulSet"
    return [
        _part(
            "Workspace", name, "waiting" if waits else "ok", "WorkspaceReady=True" if not waits else one["summary"], 74
        ),
        _part(
            "Machine", claim, "ok", f"{one['instanceType']}, Ready", 1300, _event("Launched", "the node joined", 1300)
        ),
        _part("AgentPool", claim, "ok", "Succeeded, 1 node", 1310),
        _part("Node", node, "ok", "Ready, 1 GPU", 1260),
        _part("GPU", node, "ok", "1 x NVIDIA V100, 16 GiB", 1258),
        _part(
            kind, name, "waiting" if waits else "ok", "0 of 1 pods are ready" if waits else "1 of 1 pods are ready", 74
        ),
        _part(
            "Pod",
            f"{name}-0",
            "waiting" if waits else "ok",
            "loads the weights: 61 %" if waits else f"Running on {node}",
            74,
            _event("Pulled", "container image pulled in 1 min 4 s", 120),
        ),
        _part(
            "Server",
            name,
            "waiting" if waits else "ok",
            f"http://{name}.{one['namespace']}.svc " + ("does not answer yet" if waits else "answers"),
            74,
        ),
    ]


def _tuning() -> Json:
    loss = [[step, round(1.2 + 1.3 * 0.985**step + 0.05 * ((step * 7) % 5 - 2) / 2, 4)] for step in range(0, 244, 4)]
    return {
        "phase": "Training",
        "step": 240,
        "totalSteps": 400,
        "progress": 0.6,
        "loss": loss,
        "evalLoss": 1.287,
        "eta": ago(-340),
        "push": "waiting",
        "message": "",
    }


def _advice(one: Json) -> list[str]:
    if one["state"] != "failing":
        return []
    return [
        f"Request quota for the family of {one['instanceType']}.",
        "$ az vm list-usage --location eastus -o table",
        "Or create the Workspace with an instance type of a family that has quota.",
        "$ kubectl annotate machine ws6f1a9c042 kaito.sh/retry-launch=now",
    ]


def manifest(one: Json) -> str:
    """Returns the manifest of a row."""
    task = "tuning" if one["task"] == "tuning" else "inference"
    return yaml.safe_dump(
        {
            "apiVersion": "kaito.sh/v1alpha1",
            "kind": "Workspace",
            "metadata": {"name": one["name"], "namespace": one["namespace"]},
            "resource": {
                "instanceType": one["instanceType"],
                "labelSelector": {"matchLabels": {"apps": one["name"]}},
            },
            task: {"preset": {"name": one["model"]}},
        },
        sort_keys=False,
    )


def _cause(one: Json) -> Json | None:
    if one["state"] == "progressing" and one["reason"]:
        return {
            "kind": "Workspace",
            "name": one["name"],
            "reason": one["reason"],
            "message": one["summary"],
            "since": ago(74),
        }
    if one["state"] != "failing":
        return None
    return {
        "kind": "Machine",
        "name": "ws6f1a9c042",
        "reason": "QuotaExceeded",
        "message": "All requested instance types were unavailable during launch: "
        f"ErrCode_InsufficientVCPUQuota: {one['instanceType']}: insufficient vCPU quota requested 24, remaining 0 "
        "for family StandardNCADSA100v4Family in region eastus.",
        "since": ago(192),
    }


def detail(one: Json) -> Json:
    """Returns the answer of /api/workspaces/{ns}/{name} for a row."""
    failing = one["state"] == "failing"
    serves = one["serving"]
    url = f"http://{one['name']}.{one['namespace']}.svc"
    return {
        **one,
        "cause": _cause(one),
        "next": [
            {
                "what": "The provisioner makes the next launch attempt; 3 failed so far.",
                "at": ago(-428),
                "isRetry": True,
            },
            {"what": "Machine ws6f1a9c042 is given up and replaced.", "at": ago(-710), "isRetry": True},
        ]
        if failing
        else (
            [{"what": "The pod becomes ready when its weights are loaded.", "at": None, "isRetry": False}]
            if one["state"] == "progressing"
            else []
        ),
        "advice": _advice(one),
        "notes": [],
        "chain": _chain(one),
        "waterfall": _bars(1500, _START[:2] if failing else _START, running=one["state"] in {"progressing", "failing"}),
        "tuning": _tuning() if one["task"] == "tuning" else None,
        "adapters": [{"name": "house-style", "strength": 1.0}] if one["name"] == "phi" else [],
        "events": [
            {
                "kind": "Machine",
                "name": "ws6f1a9c042",
                **_event("Launched", "launched in agent pool ws6f1a9c042", 1400),
            },
            {"kind": "Node", "name": "aks-ws6f1a9c042-00000", **_event("Registered", "the node joined", 1260)},
            {
                "kind": "Pod",
                "name": f"{one['name']}-0",
                **_event("Unhealthy", "startup probe failed: connection refused", 1180, warning=True, count=4),
            },
            {"kind": "Pod", "name": f"{one['name']}-0", **_event("Pulled", "image pulled in 1 min 4 s", 1190)},
        ],
        "endpoints": {
            "url": url,
            "openai": f"{url}/v1",
            "curl": f"curl {url}/chat \\\n  -H 'Content-Type: application/json' \\\n"
            '  -d \'{"prompt": "What is the capital of France?"}\'',
            "python": "from openai import OpenAI\n\n"
            f'client = OpenAI(base_url="{url}/v1", api_key="none")\n'
            f"print(client.models.list())",
        }
        if serves
        else None,
        "cost": {
            "hourly": one["hourlyCost"],
            "accumulated": 4.59 if one["hourlyCost"] else None,
            "idle": 0.0 if one["name"] == "phi" else None,
            "currency": "USD",
            "partial": False,
        },
        "yaml": manifest(one),
    }


def plan(text: str) -> Json:
    """Returns the answer of /api/plan: refuses falcon-40b on one V100, and names that are too long."""
    document = yaml.safe_load(text)
    name = document["metadata"]["name"]
    task = "tuning" if "tuning" in document else "inference"
    model = document.get(task, {}).get("preset", {}).get("name", "")
    instance = document["resource"].get("instanceType", "")
    refusals: list[Json] = []
    if len(name) > 52:
        refusals.append({"field": "metadata.name", "message": f"has {len(name)} characters; at most 52 are possible"})
    if model == "falcon-40b-instruct" and instance == "Standard_NC6s_v3":
        refusals.append(
            {
                "field": "resource.instanceType",
                "message": "Standard_NC6s_v3 has 16 GiB of GPU memory, and falcon-40b-instruct needs 84 GiB: "
                "use Standard_NC48ads_A100_v4",
            }
        )
    price = next((one[4] for one in _TYPES if one[0] == instance), None)
    count = document["resource"].get("count", 1)
    gib = 1 << 30
    return {
        "ok": not refusals,
        "refusals": refusals,
        "nodes": count,
        "instanceType": instance,
        "memory": []
        if refusals
        else [
            {"part": "weights", "bytes": int(7.3 * gib)},
            {"part": "key-value cache", "bytes": int(0.8 * gib)},
            {"part": "overhead", "bytes": gib},
            {"part": "free", "bytes": int(5.6 * gib)},
            {"part": "reserved", "bytes": int(1.3 * gib)},
        ],
        "gpuBytes": 16 * gib,
        "hourly": price and price * count,
        "monthly": price and price * count * 730,
        "currency": "USD",
        "timeToReady": {"seconds": 340, "parts": [{"label": "node", "seconds": 170}]},
        "objects": []
        if refusals
        else [
            {"kind": "Machine", "name": "ws*", "action": "create"},
            {"kind": "Service", "name": name, "action": "create"},
            {"kind": "StatefulSet", "name": name, "action": "create"},
        ],
        "warnings": [],
        "text": f"Workspace {document['metadata'].get('namespace', 'default')}/{name}: planned\n",
    }
