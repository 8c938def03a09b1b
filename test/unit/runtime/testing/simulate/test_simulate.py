"""The simulation of any operator: a bug is found, its scenario minimized, and the report names it."""

import contextlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from kaito.runtime import Controller, Manager, ObjectMeta, Request, Resource
from kaito.runtime.client import MergePatch
from kaito.runtime.errors import AlreadyExists, Conflict
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.testing.simulate import (
    Limits,
    Operator,
    Process,
    Replica,
    Run,
    Scenario,
    Simulation,
    Step,
    StepKind,
    describe,
    minimize,
    pytest_case,
    scenario_of,
    simulate,
)


class Order(Resource, api="example.com/v1", kind="Order"):
    """Wants a ConfigMap with its name."""


class Orders(Simulation):
    """Users create and delete orders. The operator forgets the orders of one name."""

    name = "orders"
    limits = Limits(trouble_seconds=300, converge_seconds=120, rest_seconds=60, tear_down_seconds=60)

    def __init__(
        self, forgotten: str = "", *, raises: bool = False, lease: bool = True, reads: str = "own-writes"
    ) -> None:
        self.forgotten = forgotten
        self.raises = raises
        self.lease = lease
        self.reads = reads
        """How the operator reads: `ensure`, or the consistency of a `find` before it creates."""

    @property
    def operators(self) -> Sequence[Operator]:
        return [Operator(name="orders", manager=self.manager, lease="orders")]

    def manager(self, replica: Replica) -> Manager:
        async def reconcile(request: Request[Order]) -> None:
            if self.raises:
                raise TypeError("a mistake")
            if self.reads != "own-writes":
                await create_if_missing(request, self.reads)
            elif request.key.name != self.forgotten:
                await request.api.ensure(ConfigMap(metadata=ObjectMeta(name=request.key.name)), owner=request.object)

        return Manager(
            replica.settings,
            controllers=[Controller(Order, reconcile).owns(ConfigMap)],
            lease="orders" if self.lease else None,
            transport=replica.transport,
            clock=replica.clock,
            rng=replica.rng,
            tracer=replica.tracer,
            name="orders",
        )

    def actions(self) -> Sequence[StepKind]:
        def draw(rng: random.Random) -> dict[str, str]:
            return {"name": rng.choice(("a", "b"))}

        return [
            StepKind(name="create", apply=create, draw=draw, weight=5, is_essential=True, text="creates {name}"),
            StepKind(name="label", apply=label, draw=draw, weight=0.0, text="labels {name}"),
        ]

    async def prepare(self, run: Run) -> None:
        run.world.install(Order)

    def missing(self, run: Run) -> Iterable[str]:
        for key in run.stored("orders.example.com"):
            if key not in run.stored("configmaps"):
                yield f"Order {key[1]} has no ConfigMap"

    async def tear_down(self, run: Run) -> None:
        for order in run.world.list(Order):
            run.world.delete(Order, order.name)

    def left(self, run: Run) -> Iterable[str]:
        yield from (f"Order {name}" for _, name in run.stored("orders.example.com"))


async def create(run: Run, *, name: str) -> None:
    run.world.put(Order(metadata=ObjectMeta(name=name)))


async def label(run: Run, *, name: str) -> None:
    run.world.patch(Order, name, {"metadata": {"labels": {"at": str(int(run.now))}}})


async def create_if_missing(request: Request[Order], consistency: Any) -> None:
    name = request.key.name
    if await request.api.find(ConfigMap, name, "default", consistency=consistency) is None:
        with contextlib.suppress(AlreadyExists):
            await request.api.create(ConfigMap(metadata=ObjectMeta(name=name, namespace="default")))


@pytest.mark.sample(1)
@pytest.mark.parametrize("seed", range(3))
def test_a_correct_operator_violates_nothing(seed: int) -> None:
    report = simulate(Orders(), seed)
    assert report.violation is None, describe(report)
    assert report.seconds > 300


def test_the_trouble_ends_with_the_last_fault_if_it_may_end_early() -> None:
    cut = Step(10, "cut-network", {"process": "orders-0", "seconds": 60.0})
    steps = (Step(5, "create", {"name": "a"}), cut, Step(20, "create", {"name": "b"}))
    whole, early = Orders(), Orders()
    early.limits = replace(Orders.limits, ends_early=True)
    reports = [simulate(each, Scenario(1, steps)) for each in (whole, early)]
    assert [report.violation for report in reports] == [None, None]
    (ends, ends_early) = (
        next(line.at for line in report.trace.lines if "all faults end" in line.text) for report in reports
    )
    assert ends == Orders.limits.trouble_seconds
    assert 70 <= ends_early < 100


@pytest.mark.slow("test_a_correct_operator_violates_nothing")
def test_the_same_seed_is_the_same_run() -> None:
    assert simulate(Orders(), 3).trace.digest == simulate(Orders(), 3).trace.digest
    assert simulate(Orders(), 3).trace.digest != simulate(Orders(), 4).trace.digest


def test_a_bug_is_found_and_minimized_to_the_step_that_shows_it() -> None:
    steps = [Step(float(second), "create", {"name": "a"}) for second in range(1, 6)]
    steps[3:3] = [Step(3.5, "create", {"name": "b"}), Step(3.6, "cut-watches", {})]
    report = simulate(Orders("b"), Scenario(1, tuple(steps)))
    assert report.violation is not None
    assert report.violation.text == "not within 120 s: Order b has no ConfigMap"
    scenario, smallest = minimize(report, lambda scenario: simulate(Orders("b"), scenario))
    assert [step.arguments for step in scenario.steps] == [{"name": "b"}]
    assert "creates b" in describe(smallest)
    assert '[3.5, "create", {"name": "b"}]' in pytest_case(smallest, "Orders")


def test_a_mistake_in_a_reconcile_is_a_violation() -> None:
    report = simulate(Orders(raises=True), Scenario(1, (Step(1.0, "create", {"name": "a"}),)))
    assert report.violation is not None
    assert report.violation.invariant == "no reconcile fails by a mistake"


def test_a_write_without_the_lease_is_a_violation() -> None:
    report = simulate(Orders(lease=False), Scenario(1, (Step(1.0, "create", {"name": "a"}),)))
    assert report.violation is not None
    assert report.violation.invariant == "no write without the lease"


def test_a_suspended_leader_does_not_write_when_it_continues() -> None:
    steps = (
        Step(20.0, "suspend", {"process": "orders-0", "seconds": 200.0}),
        Step(20.0, "create", {"name": "a"}),
        Step(150.0, "create", {"name": "b"}),
    )
    report = simulate(Orders(), Scenario(2, steps))
    assert report.violation is None, describe(report)
    assert any("NotLeader" in line.text for line in report.trace.lines)


LAGGING = (
    Step(1.0, "lag-watches", {"delay": 20.0, "seconds": 60.0, "kind": "ConfigMap"}),
    Step(2.0, "create", {"name": "a"}),
    Step(10.0, "label", {"name": "a"}),
)


def test_creating_again_what_was_created_is_a_violation() -> None:
    """The cache lags, and the operator reads it without waiting for its own writes."""
    report = simulate(Orders(reads="cache"), Scenario(1, LAGGING))
    assert report.violation is not None
    assert report.violation.invariant == "reads contain own writes"
    assert simulate(Orders(), Scenario(1, LAGGING)).violation is None


class Deletions(Orders):
    """The operator deletes a ConfigMap in a state that it has changed since, and then in its present state."""

    def __init__(self) -> None:
        super().__init__()
        self.sent_deletions = 0

    def manager(self, replica: Replica) -> Manager:
        async def reconcile(request: Request[Order]) -> None:
            await request.api.create(ConfigMap(metadata=ObjectMeta(name="x", namespace="default")))
            read = await request.api.get(ConfigMap, "x", "default", consistency="live")
            present = await request.api.patch(read, MergePatch({"data": {"a": "b"}}))
            with contextlib.suppress(Conflict):
                await request.api.delete(read, if_unchanged=True)
            assert self.sent_deletions == 0, "has no effect"
            await request.api.delete(present, if_unchanged=True)

        return Manager(
            replica.settings,
            controllers=[Controller(Order, reconcile).owns(ConfigMap)],
            lease="orders",
            transport=replica.transport,
            clock=replica.clock,
            rng=replica.rng,
            tracer=replica.tracer,
            name="orders",
        )

    def sent(self, run: Run, process: Process, method: str, path: str) -> None:
        del run, process
        self.sent_deletions += method == "DELETE" and path.endswith("/configmaps/x")

    def missing(self, run: Run) -> Iterable[str]:
        del run
        return ()


def test_a_deletion_whose_precondition_does_not_hold_counts_as_none() -> None:
    simulation = Deletions()
    report = simulate(simulation, Scenario(1, (Step(5, "create", {"name": "a"}),)))
    assert report.violation is None, describe(report)
    assert simulation.sent_deletions > 0


def test_a_process_is_suspended_between_two_steps() -> None:
    """The leader has read that the ConfigMap is missing, and creates it when another replica leads."""
    steps = (
        Step(20.0, "suspend", {"process": "orders-0", "seconds": 200.0, "steps": 1}),
        Step(21.0, "create", {"name": "a"}),
    )
    report = simulate(Orders(), Scenario(2, steps))
    assert report.violation is None, describe(report)
    assert "orders-0 is suspended for 200.0 s, after 1 more steps" in describe(report)
    (exit_,) = [line for line in report.trace.lines if "NotLeader" in line.text]
    assert 220.0 <= exit_.at <= 245.0


def test_a_cut_network_outlasts_a_restart() -> None:
    steps = (
        Step(5.0, "cut-network", {"process": "orders-0", "seconds": 250.0}),
        Step(5.0, "cut-network", {"process": "orders-1", "seconds": 250.0}),
        Step(20.0, "create", {"name": "a"}),
    )
    report = simulate(Orders(), Scenario(2, steps), verbose=True)
    assert report.violation is None, describe(report)
    created = [line.at for line in report.trace.lines if "POST" in line.text and "configmaps" in line.text]
    created += [line.at for line in report.trace.lines if "PATCH" in line.text and "configmaps" in line.text]
    assert min(created) > 255.0


def test_an_expired_token_keeps_a_process_from_writing_until_it_is_renewed() -> None:
    steps = (
        Step(20.0, "expire-token", {"process": "orders-0", "seconds": 250.0}),
        Step(20.0, "expire-token", {"process": "orders-1", "seconds": 250.0}),
        Step(21.0, "create", {"name": "a"}),
    )
    report = simulate(Orders(), Scenario(2, steps), verbose=True)
    assert report.violation is None, describe(report)
    writes = [line for line in report.trace.lines if " -> " in line.text]
    outcomes = {line.text.rpartition(" -> ")[2] for line in writes if 20.0 < line.at < 270.0}
    assert outcomes == {"unauthorized"}
    assert any("configmaps" in line.text for line in writes if line.at >= 270.0)


def test_leaders_change_in_order_while_clocks_differ() -> None:
    steps = (
        Step(1.0, "clock-jump", {"process": "orders-0", "offset": 3600.0, "seconds": 250.0}),
        Step(1.0, "clock-jump", {"process": "orders-1", "offset": -3600.0, "seconds": 250.0}),
        Step(20.0, "suspend", {"process": "orders-0", "seconds": 120.0}),
        Step(150.0, "suspend", {"process": "orders-1", "seconds": 120.0}),
        Step(160.0, "create", {"name": "a"}),
    )
    report = simulate(Orders(), Scenario(2, steps))
    assert report.violation is None, describe(report)


def test_every_drawn_step_has_a_description() -> None:
    scenario = scenario_of(Orders(), 5)
    assert scenario.steps
    assert Scenario.from_json(scenario.to_json()) == scenario
