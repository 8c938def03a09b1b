"""Resource quantities (`apimachinery/pkg/api/resource`): parsing and the canonical form that the server stores."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_PATTERN = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)")


def parse_quantity(text: str) -> Decimal:
    """Returns the number that a quantity stands for; raises `ValueError` when it is not one."""
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise ValueError("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    number, exponent, suffix = match.groups()
    try:
        if exponent:
            return Decimal(number + exponent)
        value = Decimal(number)
    except InvalidOperation as error:
        raise ValueError(f"unable to parse quantity's value: {text}") from error
    if suffix in _BINARY:
        return value * Decimal(1024) ** _BINARY[suffix]
    return value * Decimal(10) ** _DECIMAL[suffix or ""]


def canonical_quantity(value: str | float) -> str:
    """Returns a quantity as the server stores it: no fraction, the largest suffix that keeps the value, same base."""
    text = str(value)
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"unable to parse quantity {text!r}")
    number = parse_quantity(text)
    if number == 0:
        return "0"
    if (match[3] or "") in _BINARY and number == number.to_integral_value():
        return _largest(int(number), 1024, ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))
    if match[2]:
        return _exponent(number)
    nano = int((number * 10**9).to_integral_value(rounding="ROUND_CEILING"))
    return _largest(nano, 1000, ("n", "u", "m", "", "k", "M", "G", "T", "P", "E"))


def _largest(number: int, base: int, suffixes: tuple[str, ...]) -> str:
    step = 0
    while step < len(suffixes) - 1 and number % base == 0:
        number //= base
        step += 1
    return f"{number}{suffixes[step]}"


def _exponent(number: Decimal) -> str:
    exponent = 0
    while number % 1000 == 0:
        number /= 1000
        exponent += 3
    while number != number.to_integral_value():
        number *= 1000
        exponent -= 3
    return f"{int(number)}e{exponent}" if exponent else str(int(number))
