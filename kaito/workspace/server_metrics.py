"""Reads samples from the Prometheus metrics of a model server."""

import re
from typing import Final, NamedTuple

# A sample is on one line. The program in the pod may be the user's: if the expression crossed lines, labels without an
# end would take time that grows with the square of their number.
_SAMPLE: Final = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{([^}\n]*)\})?[ \t]+([0-9.eE+-]+)(?:\s|$)", re.MULTILINE)

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
