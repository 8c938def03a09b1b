"""Runs the scenario of a seed: the entry of a simulation."""

import asyncio
import gc
import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import structlog

from kaito.runtime.testing.simulate.faults import common_faults
from kaito.runtime.testing.simulate.run import Report, Run, Simulation
from kaito.runtime.testing.simulate.steps import Scenario, StepKind, draw_scenario
from kaito.runtime.testing.virtual import VirtualTimeLoop
from kaito.runtime.testing.world import World


def step_kinds(simulation: Simulation) -> dict[str, StepKind]:
    """Returns the kinds of steps of a simulation by name."""
    kinds = [*simulation.actions(), *common_faults(simulation.operators, simulation.lagging)]
    return {kind.name: kind for kind in kinds}


def scenario_of(simulation: Simulation, seed: int) -> Scenario:
    """Returns the scenario that a seed decides."""
    kinds = list(step_kinds(simulation).values())
    return draw_scenario(kinds, seed, seconds=simulation.limits.trouble_seconds)


def simulate(simulation: Simulation, scenario: Scenario | int, *, verbose: bool = False) -> Report:
    """Runs a scenario, or that of a seed, in virtual time.

    Args:
        simulation: the simulation.
        scenario: the scenario, or a seed.
        verbose: keep a line for each write in the trace.
    """
    chosen = scenario_of(simulation, scenario) if isinstance(scenario, int) else scenario
    loop = VirtualTimeLoop(seed=chosen.seed)
    quiet = structlog.get_config()["wrapper_class"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        with _without_collections(), asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(_run(simulation, chosen, loop, verbose=verbose))
    finally:
        structlog.configure(wrapper_class=quiet)


@contextmanager
def _without_collections() -> Generator[None]:
    """Collects garbage after the run instead of during it, which takes a sixth of its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
            gc.collect()


async def _run(simulation: Simulation, scenario: Scenario, loop: VirtualTimeLoop, *, verbose: bool) -> Report:
    kinds = step_kinds(simulation)
    async with World(seed=scenario.seed) as world:
        run = Run(simulation, scenario, world, verbose=verbose)
        async with run.scope as scope:
            await simulation.prepare(run)
            world.server.on_write(run.note_change)
            loop.before_advance = run.check
            scope.spawn(run.tick(), name="tick")
            for process in run.processes.values():
                scope.spawn(process.supervise(), name=f"supervise.{process.name}")
            play = scope.spawn(run.play(kinds), name="play")
            ends: list[asyncio.Future[Any]] = [play, run.violated]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            loop.before_advance = None
            seconds = run.now
            if not run.violated.done():
                play.result()  # raises what a step has raised
            run.trace.close()
            run.power_off()
    return Report(
        scenario=scenario,
        violation=run.violated.result() if run.violated.done() else None,
        trace=run.trace,
        seconds=seconds,
        faults=sum(kinds[step.name].is_fault for step in scenario.steps),
        reconciles=run.reconciles.total,
        errors=dict(sorted(run.reconciles.errors.items())),
        highest=run.highest_counts(),
    )
