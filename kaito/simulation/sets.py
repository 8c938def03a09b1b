"""InferenceSets, whose copies are Workspaces, and what users do with them."""

import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

from kaito.api import InferenceSet, Workspace
from kaito.runtime.client import MergePatch
from kaito.runtime.testing.simulate import Run, StepKind
from kaito.simulation.manifests import Object
from kaito.simulation.plans import A10, A100, LARGE, SMALL, V100
from kaito.simulation.workspaces import NAMESPACES, PRESETS, attempt, ensure_namespace

NAME: Final = "fleet"
"""Name of these sets in each namespace."""

OF_SET: Final = "inferenceset.kaito.sh/created-by"
"""Label of the Workspaces of a set."""


def set_actions() -> list[StepKind]:
    """Returns the actions of users."""
    return [
        StepKind(
            name="create-set",
            apply=create_set,
            draw=_draw_set,
            weight=3,
            text="user creates InferenceSet {namespace}/fleet: {replicas} of {preset} on {size}, surge {surge}, "
            "unavailable {unavailable}, at most {limit} nodes",
        ),
        StepKind(
            name="edit-set",
            apply=edit_set,
            draw=_draw_edit,
            weight=3,
            text="user edits InferenceSet {namespace}/fleet: {change} {value}",
        ),
        StepKind(
            name="delete-set",
            apply=delete_set,
            draw=lambda rng: {"namespace": rng.choice(NAMESPACES)},
            text="user deletes InferenceSet {namespace}/fleet",
        ),
        StepKind(
            name="delete-copy",
            apply=delete_copy,
            draw=lambda rng: {"number": rng.randrange(4)},
            text="user deletes Workspace number {number} of the sets",
        ),
    ]


def _draw_set(rng: random.Random) -> Object:
    return {
        "namespace": rng.choice(NAMESPACES),
        "preset": rng.choice((SMALL, SMALL, LARGE)),
        "size": rng.choice((A100, A100, V100, A10)),
        "replicas": rng.choice((1, 1, 2, 3)),
        "surge": rng.choice((1, 1, 0, 2)),
        "unavailable": rng.choice((1, 1, 0)),
        "limit": rng.choice((0, 0, 0, 2, 3)),
    }


def _draw_edit(rng: random.Random) -> Object:
    change = rng.choice(("replicas", "replicas", "preset", "size", "note", "limit"))
    value: Any
    match change:
        case "preset":
            value = rng.choice((*PRESETS, LARGE))
        case "size":
            value = rng.choice((A100, V100, A10))
        case _:
            value = rng.randrange(4)
    return {"namespace": rng.choice(NAMESPACES), "change": change, "value": value}


def set_manifest(
    namespace: str, *, preset: str, size: str, replicas: int, surge: int, unavailable: int, limit: int
) -> Object:
    """Returns the manifest of an InferenceSet."""
    return {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "InferenceSet",
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "nodeCountLimit": limit,
            "labelSelector": {"matchLabels": {"apps": f"{namespace}-{NAME}"}},
            "updateStrategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable},
            },
            "template": {"resource": {"instanceType": size}, "inference": {"preset": {"name": preset}}},
        },
    }


async def create_set(run: Run, *, namespace: str, **fields: Any) -> None:
    """Creates a set, and its namespace first."""
    await ensure_namespace(run, namespace)
    document = set_manifest(namespace, **fields)
    await attempt(run, lambda: run.client.create(InferenceSet.model_validate(document)))


async def _of(run: Run, namespace: str, send: Callable[[InferenceSet], Awaitable[object]]) -> None:
    """Sends a request about the set of a namespace, which may not exist."""

    async def find_and_send() -> object:
        present = await run.client.find(InferenceSet, NAME, namespace)
        return None if present is None else await send(present)

    await attempt(run, find_and_send)


async def edit_set(run: Run, *, namespace: str, change: str, value: Any) -> None:
    """Changes the number of Workspaces, their template, or the limit of nodes."""
    spec: Object
    match change:
        case "preset":
            spec = {"template": {"inference": {"preset": {"name": value}}}}
        case "size":
            spec = {"template": {"resource": {"instanceType": value}}}
        case "note":
            spec = {"template": {"metadata": {"annotations": {"example.com/note": f"note {value}"}}}}
        case "limit":
            spec = {"nodeCountLimit": value}
        case _:
            spec = {"replicas": value}
    await _of(run, namespace, lambda present: run.client.patch(present, MergePatch({"spec": spec})))


async def delete_set(run: Run, *, namespace: str) -> None:
    """Deletes a set in the background."""
    await _of(run, namespace, run.client.delete)


async def delete_copy(run: Run, *, number: int) -> None:
    """Deletes a Workspace of a set, which creates another."""
    found = [each for each in run.world.list(Workspace) if each.labels.get(OF_SET)]
    if number < len(found):
        await attempt(run, lambda: run.client.delete(found[number]))
