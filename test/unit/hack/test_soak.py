"""The soak test's view of an API server: one history of all resources, in the order of the writes."""

from typing import Any

from hack.soak.__main__ import is_rejected
from hack.soak.live import History
from hack.soak.steps import describe_counts, process_faults
from kaito.runtime.testing.simulate.steps import draw_scenario
from kaito.simulation.workspaces import PRESETS, SIZES, manifest


def obj(name: str, **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, **fields}


def test_events_are_applied_in_the_order_of_their_revisions() -> None:
    history = History(["nodes", "pods"])
    seen: list[tuple[str, str, bool]] = []
    history.listeners.append(lambda resource, new, old: seen.append((resource, new["metadata"]["name"], old is None)))
    history.note("pods", 12, obj("b"), exists=True, at=1.0)
    history.note("nodes", 11, obj("a"), exists=True, at=1.5)
    history.note("nodes", 13, obj("a", ready=True), exists=True, at=3.0)
    history.apply(2.0)
    assert seen == [("nodes", "a", True), ("pods", "b", True)]
    assert history.objects["nodes"] == {("", "a"): obj("a")}
    history.apply(3.0)
    assert seen[2:] == [("nodes", "a", False)]
    assert history.events == 3


def test_a_late_event_of_an_earlier_write_delays_later_ones() -> None:
    """Watches are not synchronous: what was written later may arrive earlier."""
    history = History(["nodes", "pods"])
    history.note("pods", 21, obj("b"), exists=True, at=1.0)
    history.note("nodes", 20, obj("a"), exists=True, at=2.5)
    history.apply(2.0)
    assert history.events == 0
    history.apply(2.5)
    assert history.events == 2


def test_a_deleted_object_is_gone_and_its_last_state_is_reported() -> None:
    history = History(["nodes"])
    deleted: list[dict[str, Any]] = []
    history.listeners.append(
        lambda _, new, __: deleted.append(new) if ("", "a") not in history.objects["nodes"] else None
    )
    history.note("nodes", 1, obj("a"), exists=True, at=0.0)
    history.note("nodes", 2, obj("a", last=True), exists=False, at=0.0)
    history.apply(0.0)
    assert deleted == [obj("a", last=True)]


def test_workspaces_that_only_admission_rejects_do_not_have_to_become_ready() -> None:
    def workspace(**changes: Any) -> dict[str, Any]:
        return {**manifest("chat", "default", preset=PRESETS[1], size=SIZES[0], count=1, config=False), **changes}

    assert not is_rejected(workspace())
    assert is_rejected(workspace(inference={"preset": {"name": "llama-3.3-70b-instruct"}}))
    assert is_rejected(workspace(resource={"instanceType": SIZES[0], "labelSelector": {}}))
    assert not is_rejected(manifest("own", "default", preset=PRESETS[0], size=SIZES[0], count=1, config=False))


def test_every_kind_of_process_failure_occurs_in_an_hour() -> None:
    kinds = process_faults()
    steps = draw_scenario(kinds, 1, seconds=3600.0).steps
    assert {step.name for step in steps} == {kind.name for kind in kinds}
    for step in steps:
        next(kind for kind in kinds if kind.name == step.name).describe(step.arguments)
    assert describe_counts({"kill": 2, "apply": 1}) == "apply 1, kill 2"
