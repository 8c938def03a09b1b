"""Predicates: only updates are filtered by `changed`, selectors look at the new state, and all of them combine."""

import json
from typing import Any

import pytest

from kaito.runtime.cache.entry import make_entry
from kaito.runtime.cache.event import Change, Event, EventType, generic, generic_key
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.kinds import Deployment
from kaito.runtime.meta import LabelSelector, ObjectKey
from kaito.runtime.predicate import Predicate, changed, labeled, matching, on

pytestmark = pytest.mark.virtual_time

KEY = ObjectKey("ns", "web")
Text = dict[str, Any]


def state(**fields: Any) -> Text:
    metadata: Text = {"name": "web", "namespace": "ns", "uid": "u", "resourceVersion": "1", "generation": 1}
    metadata.update(fields.pop("metadata", {}))
    return {"metadata": metadata, "spec": {}, "status": {}} | fields


def event(kind: EventType, old: Text | None, new: Text | None) -> Event[Deployment]:
    def entry(text: Text | None) -> Any:
        return make_entry(json.dumps(text).encode(), {}) if text is not None else None

    return Event(Change(kind, KEY, entry(old), entry(new), 0.0), Deployment)


def update(old: Text, new: Text) -> Event[Deployment]:
    return event(EventType.UPDATE, old, new)


@pytest.mark.parametrize(
    ("field", "new"),
    [
        ("generation", state(metadata={"generation": 2})),
        ("resourceVersion", state(metadata={"resourceVersion": "2"})),
        ("labels", state(metadata={"labels": {"a": "b"}})),
        ("annotations", state(metadata={"annotations": {"a": "b"}})),
        ("finalizers", state(metadata={"finalizers": ["x"]})),
        ("deletionTimestamp", state(metadata={"deletionTimestamp": "2030-01-01T00:00:00Z"})),
        ("status.readyReplicas", state(status={"readyReplicas": 1})),
        ("metadata.annotations[example.com/a]", state(metadata={"annotations": {"example.com/a": "b"}})),
        ("spec", state(spec={"replicas": 2})),
    ],
)
def test_an_update_passes_when_the_field_differs_and_only_then(field: str, new: Text) -> None:
    predicate = changed(field)
    assert predicate(update(state(), new))
    assert not predicate(update(new, new))
    unrelated = state(metadata={"ownerReferences": []}, other=1)
    assert not predicate(update(state(), unrelated))


def test_any_of_several_fields_is_enough() -> None:
    predicate = changed("generation", "status.readyReplicas")
    assert predicate(update(state(), state(status={"readyReplicas": 1})))
    assert predicate(update(state(), state(metadata={"generation": 2})))
    assert not predicate(update(state(), state(status={"replicas": 1})))


def test_the_order_of_fields_is_not_a_change() -> None:
    assert not changed("spec")(update(state(spec={"a": 1, "b": 2}), state(spec={"b": 2, "a": 1})))


async def test_creations_deletions_and_generic_events_always_pass() -> None:
    predicate = changed("generation")
    assert predicate(event(EventType.CREATE, None, state()))
    assert predicate(event(EventType.DELETE, state(), None))
    assert predicate(generic_key(Deployment, KEY))


@pytest.mark.parametrize("fields", [(), ("spec..[",), ("",)])
def test_unknown_fields_are_rejected(fields: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"changed\(\)"):
        changed(*fields)


@pytest.mark.parametrize(
    ("selector", "labels", "passes"),
    [
        ("app", {"app": "x"}, True),
        ("app", {}, False),
        ("!app", {}, True),
        ("app=web,tier!=db", {"app": "web"}, True),
        ("app==web", {"app": "web"}, True),
        ("app=web,tier!=db", {"app": "web", "tier": "db"}, False),
        ("app in (web,mail)", {"app": "mail"}, True),
        ({"app": "web"}, {"app": "web", "x": "y"}, True),
        (LabelSelector(match_labels={"app": "web"}), {"app": "other"}, False),
    ],
)
def test_labels(selector: Any, labels: dict[str, str], passes: bool) -> None:
    assert labeled(selector)(event(EventType.CREATE, None, state(metadata={"labels": labels}))) is passes


def test_labels_are_those_of_the_new_state_and_of_a_deletion_the_last() -> None:
    app = state(metadata={"labels": {"app": "x"}})
    assert labeled("app")(update(state(), app))
    assert not labeled("app")(update(app, state()))
    assert labeled("app")(event(EventType.DELETE, app, None))


@pytest.mark.parametrize("text", ["a b", "a in b", "=x", "a>1"])
def test_selectors_that_are_not_understood_are_rejected(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a label requirement"):
        labeled(text)


@pytest.mark.parametrize("nothing", ["", {}, LabelSelector()])
def test_selectors_that_select_everything_are_rejected(nothing: Any) -> None:
    with pytest.raises(ConfigurationError, match="an empty one matches everything"):
        labeled(nothing)


async def test_a_function_receives_the_object() -> None:
    def is_big(found: Deployment) -> bool:
        return (found.spec.replicas or 0) > 3

    predicate = matching(is_big)
    assert predicate(update(state(), state(spec={"replicas": 4})))
    assert not predicate(update(state(spec={"replicas": 4}), state()))
    assert predicate(event(EventType.DELETE, state(spec={"replicas": 4}), None))
    assert not predicate(generic_key(Deployment, KEY))
    big = Deployment.model_validate({"metadata": {"name": "a"}, "spec": {"replicas": 9}})
    assert predicate(generic(big))


YES = on(EventType.CREATE)
NO = on(EventType.DELETE)


@pytest.mark.parametrize(
    ("predicate", "passes"),
    [
        (YES & YES, True),
        (YES & NO, False),
        (NO | YES, True),
        (NO | NO, False),
        (~NO, True),
        (~YES | (YES & ~NO), True),
    ],
)
def test_combinations(predicate: Predicate, passes: bool) -> None:
    assert predicate(event(EventType.CREATE, None, state())) is passes


def test_a_combination_reads_as_it_was_written() -> None:
    predicate = changed("generation", "labels") & ~labeled("paused=true") | on(EventType.DELETE)
    assert str(predicate) == "((changed('generation', 'labels') & ~labeled('paused=true')) | on(delete))"


def test_the_right_predicate_is_not_called_if_the_left_one_decides() -> None:
    def explode(_: Deployment) -> bool:
        raise AssertionError

    created = event(EventType.CREATE, None, state())
    assert (on(EventType.CREATE) | matching(explode))(created)
    assert not (on(EventType.DELETE) & matching(explode))(created)


def test_deciding_by_headers_and_paths_decodes_no_object() -> None:
    unreadable = state(spec={"replicas": "many"}, metadata={"generation": 2})
    predicate = changed("generation", "status.readyReplicas") & labeled("!paused")
    assert predicate(update(state(), unreadable))
