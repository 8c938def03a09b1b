"""The Workspaces of a simulation, and what users do with them.

Every step names a Workspace from a small set. A user who gets an error does nothing about it: the step then has no
effect, and the reference keeps what the API server has accepted last.
"""

import random
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, cast

from kaito.api import Machine, NodeClaim, Workspace
from kaito.runtime.client import MergePatch
from kaito.runtime.errors import ApiError, KaitoRuntimeError
from kaito.runtime.kinds import ConfigMap, Namespace, Node, Pod, Service, StatefulSet
from kaito.runtime.meta import ObjectMeta, Resource
from kaito.runtime.testing.simulate import Run, StepKind
from kaito.simulation.manifests import Object
from kaito.simulation.plans import A100, SMALL, V100

NAMESPACES: Final = ("default", "team")
WORKSPACES: Final = (("default", "chat"), ("default", "own"), ("team", "chat"), ("team", "tune"))
"""Namespaces and names. Few, so that steps meet the same Workspace, and a run takes a second."""
SIZES: Final = (A100, V100)
PRESETS: Final = (SMALL, "phi-3-mini-128k-instruct")
UNKNOWN_SIZE: Final = "Standard_NC24ads_A1000"
"""Is not offered. The controller cannot know that for a Workspace with a pod template."""

CONFIG: Final = "serving-config"
"""A ConfigMap that some Workspaces name and that a user creates later."""


def manifest(
    name: str, namespace: str, *, preset: str, size: str, count: int, config: bool, profile: str = ""
) -> Object:
    """Returns the manifest of a Workspace; `tune` is a tuning Workspace, `own` has a pod template.

    With `profile`, the copies of a Workspace with a preset share nodes, each on a slice of the GPU.
    """
    selector = {"matchLabels": {"apps": f"{namespace}-{name}"}}
    document: Object = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": name, "namespace": namespace},
        "resource": {"instanceType": size, "count": count, "labelSelector": selector},
    }
    if name == "tune":
        document["resource"]["count"] = 1
        document["tuning"] = {
            "preset": {"name": preset},
            "method": "qlora",
            "input": {"urls": ["https://example.com/data.parquet"]},
            "output": {"volumeSource": {"emptyDir": {}}},
        }
    elif name == "own":
        limits = {"nvidia.com/gpu": 1}
        container = {"name": "server", "image": "registry.example.com/server:1.0", "resources": {"limits": limits}}
        document["inference"] = {"template": {"spec": {"containers": [container]}}}
    else:
        named: Object = {"config": CONFIG} if config else {}
        document["inference"] = {"preset": {"name": preset}, **named}
        if profile:
            document["resource"]["partition"] = {"mode": "mig", "profile": profile}
    return document


def actions() -> list[StepKind]:
    """Returns the actions of users."""
    return [
        StepKind(
            name="create",
            apply=create,
            draw=_draw_workspace,
            weight=8,
            is_essential=True,
            text="user creates Workspace {namespace}/{name}: {preset} on {count} x {size}, ConfigMap: {config}",
        ),
        StepKind(
            name="delete", apply=delete, draw=_draw_name, weight=3, text="user deletes Workspace {namespace}/{name}"
        ),
        StepKind(
            name="recreate",
            apply=recreate,
            draw=_draw_workspace,
            weight=2,
            text="user deletes Workspace {namespace}/{name} and creates it at once",
        ),
        StepKind(name="edit", apply=edit, draw=_draw_edit, weight=3, text="user edits {namespace}/{name}: {change}"),
        StepKind(
            name="bad-input", apply=bad_input, draw=_draw_bad, weight=1, text="user creates {namespace}/{name}: {field}"
        ),
        StepKind(name="config", apply=config, draw=_draw_config, weight=1.5, text="user sets ConfigMap: {present}"),
        StepKind(name="delete-namespace", apply=delete_namespace, weight=0.7, text="user deletes the namespace team"),
        StepKind(
            name="delete-object",
            apply=delete_object,
            draw=_draw_object,
            weight=2.5,
            text="user deletes {kind} number {number}",
        ),
        StepKind(
            name="force-delete",
            apply=force_delete,
            draw=lambda rng: {"number": rng.randrange(4)},
            weight=0.7,
            text="user deletes claim number {number} and removes its finalizers",
        ),
        StepKind(
            name="force-delete-node",
            apply=force_delete_node,
            draw=lambda rng: {"number": rng.randrange(4)},
            weight=0.5,
            text="user deletes node number {number} and removes its finalizers",
        ),
        StepKind(
            name="label-claim",
            apply=label_claim,
            draw=lambda rng: {"number": rng.randrange(4), "value": rng.randrange(4)},
            weight=0.5,
            text="user labels claim number {number}: {value}",
        ),
        StepKind(
            name="retry-launch",
            apply=retry_launch,
            draw=lambda rng: {"number": rng.randrange(4)},
            weight=0.5,
            text="user requests another launch of claim number {number}",
        ),
    ]


def _draw_name(rng: random.Random) -> Object:
    namespace, name = rng.choice(WORKSPACES)
    return {"namespace": namespace, "name": name}


def _draw_workspace(rng: random.Random) -> Object:
    return {
        **_draw_name(rng),
        "preset": rng.choice(PRESETS),
        "size": rng.choice(SIZES),
        "count": rng.choice((1, 1, 1, 2)),
        "config": rng.random() < 0.15,
    }


def _draw_edit(rng: random.Random) -> Object:
    change = rng.choice(("label", "annotation", "load-balancer", "preset", "image", "count", "replicas", "replicas"))
    return {**_draw_name(rng), "change": change, "value": rng.randrange(1, 4)}


def _draw_bad(rng: random.Random) -> Object:
    field = rng.choice(("unknown preset", "unknown instance type", "too small", "no selector", "count 0"))
    return {**_draw_name(rng), "field": field}


def _draw_config(rng: random.Random) -> Object:
    return {"present": rng.random() < 0.7, "value": rng.randrange(1, 4)}


def _draw_object(rng: random.Random) -> Object:
    kinds = ("claim", "claim", "node", "Service", "StatefulSet", "Pod", "Pod", "agent pool")
    return {"kind": rng.choice(kinds), "number": rng.randrange(4)}


# -- steps -------------------------------------------------------------------------------------------------------------


async def create(
    run: Run, *, namespace: str, name: str, preset: str, size: str, count: int, config: bool, profile: str = ""
) -> None:
    """Creates a Workspace, and its namespace first. No seed draws a `profile`: stored scenarios name it."""
    await ensure_namespace(run, namespace)
    document = manifest(name, namespace, preset=preset, size=size, count=count, config=config, profile=profile)
    await _create(run, document)


async def _create(run: Run, document: Mapping[str, Any]) -> None:
    await attempt(run, lambda: run.client.create(Workspace.model_validate(document)))


async def attempt(run: Run, send: Callable[[], Awaitable[object]]) -> None:
    """Sends a request as a user does: an error is reported and has no consequence."""
    try:
        answer = await send()
        if isinstance(answer, Workspace):
            cast("Any", run.simulation).reference.accept(answer)
    except (ApiError, KaitoRuntimeError) as error:
        run.trace.line("user", f"gets {type(error).__name__}: {str(error)[:160]}")


async def delete(run: Run, *, namespace: str, name: str) -> None:
    """Deletes a Workspace in the background."""
    present = await run.client.find(Workspace, name, namespace)
    if present is not None:
        await attempt(run, lambda: run.client.delete(present))


async def recreate(run: Run, *, namespace: str, name: str, **arguments: Any) -> None:
    """Deletes a Workspace, and creates one of its name as soon as that is possible, at most 100 s later."""
    await delete(run, namespace=namespace, name=name)
    await create(run, namespace=namespace, name=name, **arguments)


async def edit(run: Run, *, namespace: str, name: str, change: str, value: int) -> None:
    """Changes a field of a Workspace that can be changed, or one that cannot."""
    present = await run.client.find(Workspace, name, namespace)
    if present is None:
        return
    patch: Object
    match change:
        case "label":
            patch = {"metadata": {"labels": {"team": f"team-{value}"}}}
        case "annotation":
            patch = {"metadata": {"annotations": {"example.com/note": f"note {value}"}}}
        case "load-balancer":
            patch = {"metadata": {"annotations": {"kaito.sh/enablelb": "true" if value > 1 else "false"}}}
        case "preset":
            patch = {"inference": {"preset": {"name": PRESETS[value % 2]}}} if name == "chat" else {}
        case "image":
            container = {"name": "server", "image": f"registry.example.com/server:1.{value}"}
            patch = {"inference": {"template": {"spec": {"containers": [container]}}}} if name == "own" else {}
        case "replicas":
            patch = {"spec": {"replicas": value - 1}} if name != "tune" else {}
        case _:
            patch = {"resource": {"count": value}}
    if patch:
        await attempt(run, lambda: run.client.patch(present, MergePatch(patch)))


async def bad_input(run: Run, *, namespace: str, name: str, field: str) -> None:
    """Creates a Workspace that is refused, or that costs nothing."""
    await ensure_namespace(run, namespace)
    document = manifest(name, namespace, preset=PRESETS[0], size=SIZES[0], count=1, config=False)
    given: Object = document.get("inference") or document.get("tuning") or {}
    match field:
        case "unknown preset" if "preset" in given:
            given["preset"] = {"name": "phi-33"}
        case "too small" if "preset" in given:
            given["preset"] = {"name": "llama-3.3-70b-instruct"}
            document["resource"]["instanceType"] = "Standard_NC4as_T4_v3"
        case "no selector":
            document["resource"]["labelSelector"] = {}
        case "count 0":
            document["resource"]["count"] = 0
        case _:
            document["resource"]["instanceType"] = UNKNOWN_SIZE
    await attempt(run, lambda: run.client.create(Workspace.model_validate(document)))


async def config(run: Run, *, present: bool, value: int) -> None:
    """Creates, changes or deletes the ConfigMap that some Workspaces name."""
    for namespace in NAMESPACES:
        found = await run.client.find(ConfigMap, CONFIG, namespace)
        data = {"inference_config.yaml": f"vllm:\n  max-num-seqs: {16 * value}\n"}
        if found is None and present:
            wanted = ConfigMap(metadata=ObjectMeta(name=CONFIG, namespace=namespace), data=data)
            await attempt(run, partial(run.client.create, wanted))
        elif found is not None and present:
            await attempt(run, partial(run.client.patch, found, MergePatch({"data": data})))
        elif found is not None:
            await attempt(run, partial(run.client.delete, found))


async def delete_namespace(run: Run) -> None:
    """Deletes the second namespace with everything in it."""
    present = await run.client.find(Namespace, "team")
    if present is not None:
        await attempt(run, lambda: run.client.delete(present))


async def ensure_namespace(run: Run, namespace: str) -> None:
    """Creates a namespace that does not exist."""
    if await run.client.find(Namespace, namespace) is None:
        await attempt(run, lambda: run.client.create(Namespace(metadata=ObjectMeta(name=namespace))))


async def delete_object(run: Run, *, kind: str, number: int) -> None:
    """Deletes something that the controllers manage."""
    if kind == "agent pool":
        cloud = cast("Any", run.simulation).cloud
        pools = sorted(cloud.simulator.cluster.pools)
        if number < len(pools):
            cloud.simulator.cluster.delete(pools[number])
        return
    kinds: dict[str, tuple[type[Resource], ...]] = {
        "claim": (Machine, NodeClaim),
        "node": (Node,),
        "Service": (Service,),
        "StatefulSet": (StatefulSet,),
        "Pod": (Pod,),
    }
    found = [each for one in kinds[kind] for each in run.world.list(one) if each.name != "kubernetes"]
    if number < len(found):
        await attempt(run, lambda: run.client.delete(found[number]))


async def force_delete(run: Run, *, number: int) -> None:
    """Deletes a claim without its finalizer, as users do when a deletion takes too long: its instance is an orphan."""
    found = [each for kind in (Machine, NodeClaim) for each in run.world.list(kind)]
    if number >= len(found):
        return
    cast("Any", run.simulation).reference.forced.add(found[number].name)
    await attempt(run, lambda: run.client.delete(found[number]))
    patch = MergePatch({"metadata": {"finalizers": None}})
    await attempt(run, lambda: run.client.patch(found[number], patch))


async def force_delete_node(run: Run, *, number: int) -> None:
    """Deletes a node without its finalizers: the instance runs on, and cannot join again."""
    found = run.world.list(Node)
    if number >= len(found):
        return
    cast("Any", run.simulation).reference.forced.add(found[number].name)
    await attempt(run, lambda: run.client.delete(found[number]))
    await attempt(run, lambda: run.client.patch(found[number], MergePatch({"metadata": {"finalizers": None}})))


async def label_claim(run: Run, *, number: int, value: int) -> None:
    """Sets a label of a claim, which is reconciled then."""
    found = [each for kind in (Machine, NodeClaim) for each in run.world.list(kind)]
    if number < len(found):
        patch = MergePatch({"metadata": {"labels": {"example.com/cost-center": f"{value}"}}})
        await attempt(run, lambda: run.client.patch(found[number], patch))


async def retry_launch(run: Run, *, number: int) -> None:
    """Requests another launch of a claim by the annotation for that."""
    found = [each for kind in (Machine, NodeClaim) for each in run.world.list(kind)]
    if number < len(found):
        cast("Any", run.simulation).reference.retried.add(found[number].name)
        patch = MergePatch({"metadata": {"annotations": {"kaito.sh/retry-launch": "now"}}})
        await attempt(run, lambda: run.client.patch(found[number], patch))
