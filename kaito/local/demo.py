"""`kaito demo`: applies a Workspace, queries the model, deletes it, and prints a timeline.

Every printed line is observed: the manifest is applied to the API server, the question goes through the Service, and
the demo ends when machine, pool, node and pods are deleted.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml

from kaito.api.karpenter import Machine, NodeClaim
from kaito.api.workspace import Workspace, WorkspaceV1Alpha1
from kaito.local.cluster import LocalCluster, local_cluster
from kaito.local.options import Options
from kaito.local.progress import COLUMNS
from kaito.local.time_limit import time_limit
from kaito.local.view import View
from kaito.runtime.kinds import Node, Pod
from kaito.runtime.meta import ObjectMeta, find_condition
from kaito.runtime.tasks import TaskScope

QUESTION: Final = {"prompt": "What is the capital of France?", "generate_kwargs": {"do_sample": False}}
"""The body of the query. Without `do_sample` the route samples, and a small model answers differently every time."""

READY_SECONDS = 300.0
GONE_SECONDS = 120.0
POLL_SECONDS = 0.2

MANIFEST = """\
apiVersion: kaito.sh/v1alpha1
kind: Workspace
metadata:
  name: workspace-phi-3-mini
resource:
  instanceType: "Standard_NC6s_v3"
  labelSelector:
    matchLabels:
      apps: phi-3
inference:
  preset:
    name: phi-3-mini-4k-instruct
"""
"""The phi-3 sample Workspace (`config/samples` contains the same manifest)."""


async def demo(options: Options, view: View, sample: Path | None = None) -> None:
    """Applies a Workspace, queries the model, and deletes the Workspace.

    Raises:
        TimeoutError: a step exceeded its time limit; the last printed lines show which.
    """
    manifest = sample.read_text() if sample else MANIFEST
    async with TaskScope("demo") as scope, local_cluster(options, scope, view.print) as cluster:
        view.print(f"up; kubeconfig {cluster.kubeconfig}, logs in {cluster.logs}")
        scope.spawn(view.follow(cluster), name="view")
        workspace = await _apply(cluster, view, manifest)
        await until(lambda: _is_ready(cluster, workspace), READY_SECONDS, "the Workspace to become ready")
        await _show_table(cluster, view)
        await _query(cluster, view, workspace)
        await delete_workspace(cluster, view, workspace)
        view.print("everything is deleted; stopping")
    view.print_text(timeline(view))


async def delete_workspace(cluster: LocalCluster, view: View, workspace: Workspace) -> None:
    """Deletes the Workspace, and waits until its claims, nodes and pods are deleted."""
    view.print(f"kubectl delete workspace {workspace.name}")
    await cluster.api.delete(workspace)
    await until(lambda: _is_gone(cluster), GONE_SECONDS, "machine, pool, node and pods to go")
    await asyncio.sleep(2 * POLL_SECONDS)  # the view prints the last change


async def _apply(cluster: LocalCluster, view: View, manifest: str) -> Workspace:
    view.print_text("")
    for line in manifest.splitlines():
        view.print_text(f"         {line}")
    view.print_text("")
    document: dict[str, Any] = yaml.safe_load(manifest)
    wanted = WorkspaceV1Alpha1.model_validate(document)
    wanted = wanted.evolve(metadata=ObjectMeta(name=wanted.name, namespace=wanted.namespace or "default"))
    view.print(f"kubectl apply workspace {wanted.name}")
    applied = await cluster.manager.client.apply(wanted, field_manager="kubectl")
    return await cluster.manager.client.get(Workspace, applied.name, applied.namespace)


async def _is_ready(cluster: LocalCluster, workspace: Workspace) -> bool:
    now = await cluster.api.find(Workspace, workspace.name, workspace.namespace)
    conditions = now.status.conditions if now else []
    return all((found := find_condition(conditions, column)) is not None and found.is_true for column in COLUMNS)


async def _is_gone(cluster: LocalCluster) -> bool:
    claim = Machine if cluster.options.node_api == "machine" else NodeClaim
    kinds = (Workspace, claim, Node, Pod)
    return not any([await cluster.api.list(kind) for kind in kinds])


async def until(condition: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    """Waits for a condition.

    Raises:
        TimeoutError: it did not become true in time; the message contains `what`.
    """
    async with time_limit(seconds, what):
        while not await condition():
            await asyncio.sleep(POLL_SECONDS)


async def _show_table(cluster: LocalCluster, view: View) -> None:
    """The table that `kubectl get workspace` prints."""
    path = "/apis/kaito.sh/v1alpha1/namespaces/default/workspaces"
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    table = json.loads((await cluster.manager.client.transport.request("GET", path, headers=accept)).body)
    columns = [i for i, column in enumerate(table["columnDefinitions"]) if not column.get("priority")]
    rows = [[table["columnDefinitions"][i]["name"].upper() for i in columns]]
    rows += [[str(row["cells"][i]) for i in columns] for row in table["rows"]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    view.print_text("")
    view.print("kubectl get workspace")
    for row in rows:
        view.print_text("         " + "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    view.print_text("")


async def _query(cluster: LocalCluster, view: View, workspace: Workspace) -> None:
    url = cluster.service_url(workspace.key)
    view.print(f"curl -X POST {url}/chat -d '{json.dumps(QUESTION)}'")
    async with aiohttp.ClientSession() as session, session.post(f"{url}/chat", json=QUESTION) as answer:
        body = await answer.text()
        answer.raise_for_status()
    view.print(f"{answer.status} {answer.reason}: {body[:300]}")
    view.print_text(f"         ({cluster.model.description})")


def timeline(view: View) -> str:
    """The time at which each object first reached its final state."""
    goals = {
        "workspace": ("WorkspaceReady=True", "Workspace ready"),
        "machine": ("Ready", "machine Ready"),
        "nodeclaim": ("Ready", "node claim Ready"),
        "agent pool": ("Succeeded", "agent pool Succeeded"),
        "node": ("Ready, ", "node Ready with its GPU"),
        "pod": ("Running, ready", "inference server answers /health"),
    }
    reached: dict[str, float] = {}
    for moment, fact in view.timeline:
        goal, label = goals.get(fact.kind, ("\0", ""))
        if label not in reached and (
            fact.state == goal or (goal[0] != "\0" and goal in fact.state and goal != "Ready")
        ):
            reached[label] = moment
    lines = [f"  {moment:6.1f}s  {label}" for label, moment in sorted(reached.items(), key=lambda item: item[1])]
    return "\n".join(["", "timeline", *lines])
