"""Two replicas of the operator in simulated hours of trouble: crashes, suspended leaders, lost answers, late events."""

import random
from collections.abc import Iterable, Sequence

import pytest
from kaito.runtime import Manager, ObjectMeta
from kaito.runtime.errors import NotFound
from kaito.runtime.testing import workloads
from kaito.runtime.testing.simulate import Finding, Limits, Operator, Replica, Run, Simulation, StepKind, simulate

from memcached_operator.api import Memcached, MemcachedSpec, definition
from memcached_operator.controller import controller

NAMES = ("sessions", "pages")


class MemcachedSimulation(Simulation):
    """Users create, scale and delete two Memcacheds."""

    name = "memcached"
    limits = Limits(trouble_seconds=1200)

    @property
    def operators(self) -> Sequence[Operator]:
        return [Operator(name="memcached", manager=self.manager, lease="memcached-operator")]

    def manager(self, replica: Replica) -> Manager:
        return Manager(
            replica.settings,
            controllers=[controller],
            lease="memcached-operator",
            transport=replica.transport,
            clock=replica.clock,
            rng=replica.rng,
            tracer=replica.tracer,
        )

    def actions(self) -> Sequence[StepKind]:
        def draw(rng: random.Random) -> dict[str, object]:
            return {"name": rng.choice(NAMES), "size": rng.randint(1, 3)}

        def name(rng: random.Random) -> dict[str, object]:
            return {"name": rng.choice(NAMES)}

        return [
            StepKind(
                name="apply", apply=apply, draw=draw, weight=4, is_essential=True, text="user applies {name} {size}"
            ),
            StepKind(name="delete", apply=delete, draw=name, text="user deletes {name}"),
        ]

    async def prepare(self, run: Run) -> None:
        run.world.install(definition())
        await run.world.start(*workloads(ready_after=20))

    def check(self, run: Run) -> Iterable[Finding]:
        present = run.stored("memcacheds.cache.example.com")
        for key in run.stored("services"):
            if key not in present and key != ("default", "kubernetes"):
                yield Finding("no orphan", f"Service {key} without its Memcached", within=60)

    def missing(self, run: Run) -> Iterable[str]:
        for (_, name), memcached in run.stored("memcacheds.cache.example.com").items():
            ready = memcached.get("status", {}).get("readyReplicas", 0)
            if ready != memcached["spec"]["size"]:
                yield f"{name} has {ready} of {memcached['spec']['size']} servers"

    async def tear_down(self, run: Run) -> None:
        for name in NAMES:
            await delete(run, name=name)

    def left(self, run: Run) -> Iterable[str]:
        yield from (f"Memcached {key}" for key in run.stored("memcacheds.cache.example.com"))
        yield from (f"Pod {key}" for key in run.stored("pods"))


async def apply(run: Run, *, name: str, size: int) -> None:
    run.world.put(Memcached(metadata=ObjectMeta(name=name), spec=MemcachedSpec(size=size)))


async def delete(run: Run, *, name: str) -> None:
    try:
        run.world.delete(Memcached, name)
    except NotFound:
        pass


@pytest.mark.parametrize("seed", range(5))
def test_the_operator_survives(seed: int) -> None:
    report = simulate(MemcachedSimulation(), seed)
    assert report.violation is None, "\n".join(map(str, report.trace.lines))
