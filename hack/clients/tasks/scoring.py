"""Metric of the task kaito_answers; lm-eval loads this file by its path."""

from collections.abc import Mapping, Sequence


def contains(document: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
    """Returns 1 if a completion contains the expected word."""
    return {"contains": float(document["answer"].lower() in results[0].lower())}
