"""What all tests share: the markers `slow` and `sample`, and fewer runs of the garbage collector."""

import gc
from collections import defaultdict
from collections.abc import Sequence
from typing import TypeVar

import pytest

T = TypeVar("T")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what `make test-unit` leaves out; fails if a slow test names no fast test of its subject."""
    variants = defaultdict[object, list[pytest.Item]](list)
    for item in items:
        function: object = getattr(item, "function", None)
        if item.get_closest_marker("slow") is None:
            variants[function].append(item)
        else:
            check_representative(function)
    variants.pop(None, None)
    for found in variants.values():
        sample = found[0].get_closest_marker("sample")
        if sample is not None:
            for item in set(found) - set(spread(found, *sample.args)):
                item.add_marker(pytest.mark.slow)


def spread(items: Sequence[T], count: int) -> list[T]:
    """Returns `count` of the items: the first, the last, and others at equal distances."""
    if count >= len(items):
        return list(items)
    step = (len(items) - 1) / max(count - 1, 1)
    return [items[round(number * step)] for number in range(count)]


def check_representative(function: object) -> None:
    """Raises `pytest.UsageError` if a test that is slow does not name one of its module that is fast."""
    for mark in getattr(function, "pytestmark", ()):
        if mark.name != "slow":
            continue
        name = mark.args[0] if mark.args else ""
        other = getattr(function, "__globals__", {}).get(name)
        if other is None or any(mark.name == "slow" for mark in getattr(other, "pytestmark", ())):
            test = f"{function.__module__}.{getattr(function, '__name__', '')}"
            raise pytest.UsageError(f"{test}: slow({name!r}) has to name a test of its module that is not slow")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Excludes the imported modules and the collected tests from garbage collection.

    They live until the end, and full collections over them took a tenth of the time of the unit tests.
    """
    del session
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
