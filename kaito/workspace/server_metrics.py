"""Reads samples from the Prometheus metrics of a model server."""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

RUNNING: Final = ("vllm:num_requests_running", "kaito_generation_in_flight")
WAITING: Final = ("vllm:num_requests_waiting", "kaito_generation_queue_length")
"""Metrics of the runtimes; the first one that a server exports is used."""

# A sample is on one line. The program in the pod may be the user's: if the expression crossed lines, labels without an
# end would take time that grows with the square of their number.
# For the same reason the repetitions of the labels are possessive. The value of a label may contain braces.
_SAMPLE: Final = re.compile(
    r"""^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[^"{}\n]++|"(?:[^"\\\n]|\\.)*+")*+)\})?[ \t]+([0-9.eE+-]+)(?:\s|$)""",
    re.MULTILINE,
)

_LARGEST: Final = 2.0**53
"""Largest value. Counters above it are not exact any more."""


class Sample(NamedTuple):
    """One line of the metrics."""

    name: str
    labels: str
    """The text between the braces."""
    value: float


def read_samples(body: bytes, names: frozenset[str]) -> list[Sample] | None:
    """Returns the samples with these names; None if one of them has a value that is malformed or too large."""
    found = _SAMPLE.findall(body.decode(errors="replace"))
    try:
        samples = [Sample(name, given, float(text)) for name, given, text in found if name in names]
    except ValueError:
        return None
    return samples if all(abs(sample.value) <= _LARGEST for sample in samples) else None


def read_sums(body: bytes, names: frozenset[str]) -> dict[str, float] | None:
    """Returns the sums of the samples by name, over all labels; None as `read_samples` does."""
    samples = read_samples(body, names)
    if samples is None:
        return None
    found: dict[str, float] = {}
    for sample in samples:
        found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def first_of(found: Mapping[str, float], names: Iterable[str]) -> float | None:
    """Returns the value of the first of the names that exists; None if none does."""
    return next((found[name] for name in names if name in found), None)
