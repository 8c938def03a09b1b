"""Lists by labels of many objects: the same result as a comparison of every object, with less work."""

import random

import pytest

from kaito.runtime.cache.entry import Entry, make_entry
from kaito.runtime.cache.labels import MAX_NAMES, MIN_OBJECTS
from kaito.runtime.cache.store import Store
from kaito.runtime.meta import LabelSelector

NAMES = ("app", "tier", "zone")
VALUES = ("a", "b", "c")
SELECTORS = (
    "app=a",
    "app=a,tier=b",
    "zone=c,app!=a",
    "app in (a,b)",
    "tier",
    "!tier",
    "zone=missing",
    "app=a,zone notin (a)",
)


def entry(number: int, labels: dict[str, str], namespace: str = "default") -> Entry:
    """An entry of the store."""
    pairs = ",".join(f'"{name}":"{value}"' for name, value in labels.items())
    meta = f'{{"name":"m-{number}","namespace":"{namespace}","uid":"u-{number}","labels":{{{pairs}}}}}'
    return make_entry(f'{{"metadata":{meta}}}'.encode(), {})


def found(store: Store, selector: LabelSelector, namespace: str = "") -> set[str]:
    """The names that the cache would list."""
    entries = store.select(namespace=namespace, labels=selector)
    return {each.header.key.name for each in entries if selector.matches(each.header.labels)}


def expected(store: Store, selector: LabelSelector, namespace: str = "") -> set[str]:
    """The names by comparing every object."""
    return {
        each.header.key.name
        for each in store
        if selector.matches(each.header.labels) and namespace in {"", each.header.key.namespace}
    }


@pytest.mark.sample(4)
@pytest.mark.parametrize("seed", range(20))
def test_lists_are_those_of_a_comparison_after_any_changes(seed: int) -> None:
    rng = random.Random(seed)
    store = Store()
    selectors = [LabelSelector.parse(text) for text in SELECTORS]
    for _ in range(600):
        number = rng.randrange(2 * MIN_OBJECTS)
        labels = {name: rng.choice(VALUES) for name in NAMES if rng.random() < 0.7}
        one = entry(number, labels, rng.choice(("default", "team")))
        if rng.random() < 0.2:
            store.remove(one.header.key)
        else:
            store.put(one)
        if rng.random() < 0.1:
            for selector in selectors:
                namespace = rng.choice(("", "default", "team", "none"))
                assert found(store, selector, namespace) == expected(store, selector, namespace)


def test_only_objects_with_the_label_are_compared() -> None:
    store = Store()
    for number in range(1000):
        store.put(entry(number, {"app": f"a-{number}"}))
    selector = LabelSelector.parse("app=a-7")
    assert [each.header.key.name for each in store.select(labels=selector)] == ["m-7"]
    store.put(entry(8, {"app": "a-7"}))
    store.remove(entry(7, {}).header.key)
    assert [each.header.key.name for each in store.select(labels=selector)] == ["m-8"]


def test_further_label_names_search_all_objects() -> None:
    store = Store()
    for number in range(MIN_OBJECTS):
        store.put(entry(number, {f"name-{number % (MAX_NAMES + 4)}": "x"}))
    for name in range(MAX_NAMES + 4):
        selector = LabelSelector(match_labels={f"name-{name}": "x"})
        assert found(store, selector) == expected(store, selector)
        compared = len(list(store.select(labels=selector)))
        assert (compared == MIN_OBJECTS) == (name >= MAX_NAMES)
