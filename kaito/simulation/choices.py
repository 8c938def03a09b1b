"""Workspaces with alternatives, limits of the cost and copies on several nodes, and budgets of namespaces."""

import random
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, cast

from kaito.api import Workspace
from kaito.runtime.client import MergePatch
from kaito.runtime.kinds import Namespace
from kaito.runtime.testing.simulate import Run, StepKind
from kaito.simulation.manifests import Object
from kaito.simulation.plans import A10, A100, LARGE, SMALL, V100
from kaito.simulation.workspaces import NAMESPACES, attempt, delete, ensure_namespace

NAME: Final = "wide"
"""Name of these Workspaces in each namespace."""

AMOUNTS: Final = ("", "", "", "3.50", "7.00", "12.00")
"""Values of `resource.maxHourlyCost`: none, one node, two nodes, or more."""

BUDGETS: Final = ("", "", "4.00", "8.00", "16.00", "40.00", "much")
"""Values of the annotation of a namespace; empty for none. One is not an amount of money."""


def choice_actions() -> list[StepKind]:
    """Returns the actions of users."""
    return [
        StepKind(
            name="create-choice",
            apply=create_choice,
            draw=_draw_choice,
            weight=3,
            text="user creates {namespace}/wide: {preset}, {count} copies on {sizes} ({capacity}), at most {cost}",
        ),
        StepKind(
            name="edit-choice",
            apply=edit_choice,
            draw=_draw_edit,
            weight=2,
            text="user edits {namespace}/wide: {change} {value}",
        ),
        StepKind(
            name="delete-choice",
            apply=partial(delete, name=NAME),
            draw=_draw_namespace,
            text="user deletes Workspace {namespace}/wide",
        ),
        StepKind(
            name="budget",
            apply=budget,
            draw=lambda rng: {**_draw_namespace(rng), "amount": rng.choice(BUDGETS)},
            weight=1.5,
            text="an administrator sets the budget of namespace {namespace}: '{amount}'",
        ),
    ]


def _draw_namespace(rng: random.Random) -> Object:
    return {"namespace": rng.choice(NAMESPACES)}


def _draw_sizes(rng: random.Random) -> list[str]:
    return rng.sample((A100, V100, A10), rng.choice((1, 2, 2, 3)))


def _draw_choice(rng: random.Random) -> Object:
    return {
        **_draw_namespace(rng),
        "preset": rng.choice((SMALL, LARGE)),
        "sizes": _draw_sizes(rng),
        "count": rng.choice((1, 1, 2)),
        "cost": rng.choice(AMOUNTS),
        "capacity": rng.choice(("", "", "on-demand", "spot-preferred", "spot")),
    }


def _draw_edit(rng: random.Random) -> Object:
    change = rng.choice(("cost", "cost", "sizes", "replan", "replan", "replicas", "capacity"))
    value: Any
    match change:
        case "cost":
            value = rng.choice(AMOUNTS)
        case "sizes":
            value = _draw_sizes(rng)
        case "replicas":
            value = rng.randrange(3)
        case "capacity":
            value = rng.choice(("on-demand", "spot-preferred", "spot"))
        case _:
            value = "now"
    return {**_draw_namespace(rng), "change": change, "value": value}


def choice_manifest(
    namespace: str, *, preset: str, sizes: Sequence[str], count: int, cost: str, capacity: str
) -> Object:
    """Returns the manifest of a Workspace with alternatives."""
    resource: Object = {
        "instanceTypes": list(sizes),
        "count": count,
        "labelSelector": {"matchLabels": {"apps": f"{namespace}-{NAME}"}},
    }
    if cost:
        resource["maxHourlyCost"] = cost
    if capacity:
        resource["capacityType"] = capacity
    return {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": NAME, "namespace": namespace},
        "resource": resource,
        "inference": {"preset": {"name": preset}},
    }


async def create_choice(run: Run, *, namespace: str, **fields: Any) -> None:
    """Creates a Workspace, and its namespace first."""
    await ensure_namespace(run, namespace)
    document = choice_manifest(namespace, **fields)
    await attempt(run, lambda: run.client.create(Workspace.model_validate(document)))


async def edit_choice(run: Run, *, namespace: str, change: str, value: Any) -> None:
    """Changes what a Workspace may use and cost, or requests that its instance type is chosen again."""
    present = await run.client.find(Workspace, NAME, namespace)
    if present is None:
        return
    patch: Object
    match change:
        case "cost":
            patch = {"resource": {"maxHourlyCost": value or None}}
        case "sizes":
            patch = {"resource": {"instanceTypes": value}}
        case "replicas":
            patch = {"spec": {"replicas": value}}
        case "capacity":
            patch = {"resource": {"capacityType": value}}
        case _:
            patch = {"metadata": {"annotations": {"kaito.sh/replan": value}}}
            cast("Any", run.simulation).reference.note_replan(present.uid)
    await attempt(run, lambda: run.client.patch(present, MergePatch(patch)))


async def budget(run: Run, *, namespace: str, amount: str) -> None:
    """Sets or removes the budget of a namespace."""
    await ensure_namespace(run, namespace)
    present = await run.client.find(Namespace, namespace)
    if present is not None:
        patch = MergePatch({"metadata": {"annotations": {"kaito.sh/hourly-budget": amount or None}}})
        await attempt(run, partial(run.client.patch, present, patch))
