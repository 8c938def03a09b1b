"""The removal of CustomResourceDefinitions with their objects, and their installation after a time.

The API server deletes the objects of a definition first, and their finalizers keep it until the controllers have
removed what the objects have bought. A definition that is being removed accepts no new objects.
"""

import asyncio
import random
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast

from kaito.api import crds
from kaito.runtime.errors import NotFound
from kaito.runtime.kinds import CustomResourceDefinition
from kaito.runtime.testing.simulate import Run, StepKind
from kaito.simulation.manifests import Object
from kaito.simulation.workspaces import attempt

STORED: Final = "customresourcedefinitions.apiextensions.k8s.io"

SETTLE_SECONDS: Final = 120.0
"""Time after the installation until all controllers watch the kind again."""

REMOVAL_SECONDS: Final = 3600.0
"""How long the removal of a definition may take."""


def definition_actions() -> list[StepKind]:
    """Returns the actions of administrators."""
    return [
        StepKind(
            name="remove-definition",
            apply=remove_definition,
            draw=_draw,
            weight=0.4,
            text="an administrator removes the definition of {kind} for {seconds} s",
        )
    ]


def _draw(rng: random.Random) -> Object:
    kind = rng.choice(("workspaces", "inferencesets", "claims"))
    return {"kind": kind, "seconds": rng.choice((0.0, 30.0, 300.0, 900.0))}


def unless_removed(kind: StepKind) -> StepKind:
    """Returns a kind of step that has no effect if a kind of object that it names is not served."""

    async def apply(run: Run, **arguments: Any) -> None:
        try:
            await kind.apply(run, **arguments)
        except NotFound as error:
            run.trace.line("user", f"gets NotFound: {str(error)[:160]}")

    return replace(kind, apply=apply)


async def remove_definition(run: Run, *, kind: str, seconds: float) -> None:
    """Deletes a definition with its objects, and installs it again some seconds after it was removed."""
    simulation = cast("Any", run.simulation)
    claims = simulation.claim_kind
    name = f"{claims.plural}.{claims.group()}" if kind == "claims" else f"{kind}.kaito.sh"
    if name in simulation.removed or ("", name) not in run.stored(STORED):
        return
    present = await run.client.get(CustomResourceDefinition, name)
    simulation.removed.add(name)
    await attempt(run, partial(run.client.delete, present))
    run.scope.spawn(_install_again(run, name, seconds), name=f"install {name}")


async def _install_again(run: Run, name: str, seconds: float) -> None:
    began = run.now
    while ("", name) in run.stored(STORED):
        run.fault_lasts(SETTLE_SECONDS)
        if run.is_calm and run.now - began > REMOVAL_SECONDS:
            objects = sorted(run.stored(name))
            run.fail("every deletion ends", f"the definition {name} is terminating, with {objects[:3]}")
        await asyncio.sleep(5.0)
    run.trace.line("cluster", f"the definition {name} is removed")
    until = run.now + seconds
    while run.now < until and not run.is_calm:
        run.fault_lasts(SETTLE_SECONDS)
        await asyncio.sleep(5.0)
    (manifest,) = [each for each in crds.manifests() if each["metadata"]["name"] == name]
    run.world.install(manifest)
    run.trace.line("user", f"installs the definition {name}")
    run.fault_lasts(SETTLE_SECONDS)
    cast("Any", run.simulation).removed.discard(name)
