"""Decodes selections of the cache, and the values that are derived from them, in steps that let other tasks run."""

import asyncio
from collections.abc import Sequence
from typing import Final, TypeVar

from kaito.runtime.client.codec import ResourceList
from kaito.runtime.client.consistency import Derivation, Undecoded
from kaito.runtime.client.unreadable import log_skipped
from kaito.runtime.errors import UnreadableObject
from kaito.runtime.meta import Resource

R = TypeVar("R", bound=Resource)
T = TypeVar("T")

DECODED_AT_ONCE: Final = 32
"""Objects of a selection that are decoded before the task yields to the event loop: about 3 ms
(docs/internals/benchmarks.md)."""


async def decoded(chosen: Sequence[Undecoded[R]], version: str, *, skip: bool) -> ResourceList[R]:
    """Decodes a selection, yielding to the event loop: decoding a thousand pods takes a tenth of a second."""
    objects: ResourceList[R] = ResourceList(resource_version=version)
    for number, undecoded in enumerate(chosen, 1):
        objects.add_decoded(undecoded.decode, skip=skip)
        if number % DECODED_AT_ONCE == 0:
            await asyncio.sleep(0)
    log_skipped(objects.unreadable)
    return objects


async def remembered(derived: Derivation[R, T], chosen: Sequence[Undecoded[R]]) -> list[T]:
    """Returns the values of a selection, decoding only the objects of which the value is not known.

    Objects that do not fit their model have no value, and each of their versions is logged once.
    """
    values: list[T] = []
    number = 0
    for undecoded in chosen:
        known: tuple[T, ...] | None = undecoded.known(derived)
        if known is None:
            known = compute(derived, undecoded)
            undecoded.remember(derived, known)
            number += 1
            if number % DECODED_AT_ONCE == 0:
                await asyncio.sleep(0)
        values += known
    return values


def compute(derived: Derivation[R, T], undecoded: Undecoded[R]) -> tuple[T, ...]:
    """Returns the value of an object; none if the object does not fit its model, which is logged."""
    try:
        obj = undecoded.decode()
    except UnreadableObject as error:
        log_skipped([error])
        return ()
    return (derived.compute(obj),)
