"""Resource quantities: `500m` of a CPU, `16Gi` of memory, `1` GPU.

Quantities are compared and added by value, and serialized as they were parsed. The grammar and suffixes are those of
the Kubernetes API reference (`resource.Quantity`); whole units are rounded up, as in the scheduler.
"""

import re
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache, total_ordering
from typing import Any, Self, final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

_PATTERN = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?\d+))?")

_SCHEMA_PATTERN = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
    r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)

_SCALE = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}

_BINARY = tuple((suffix, 2**power) for suffix, power in (("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20)))


LARGEST = Decimal(2**63 - 1)
"""Quantities with a greater absolute value are capped, as in `resource.ParseQuantity`."""

_LONGEST_EXPONENT = 100
"""Greater decimal exponents are capped: they exceed the largest quantity, and would need memory in proportion."""


_LONGEST_CACHED = 64
"""Longer texts are parsed each time, so that the cache stays small."""


def _parse(text: str) -> Decimal:
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        message = f"{text!r} is not a quantity: a number with an optional suffix such as m, k, M, G, Ki, Mi, Gi"
        raise ValueError(message)
    number, suffix, exponent = match.groups()
    value = Decimal(number)
    if suffix:
        value *= _SCALE[suffix]
    elif exponent:
        sign, digits = exponent[:1] == "-", exponent.lstrip("+-0")
        power = int(digits or "0") if len(digits) <= 3 else _LONGEST_EXPONENT
        value = value.scaleb((-1 if sign else 1) * min(power, _LONGEST_EXPONENT))
    return max(-LARGEST, min(LARGEST, value))


def _plain(value: Decimal) -> str:
    """Returns the shortest form without an exponent; fractions in milli, as the API server does."""
    if value == value.to_integral_value():
        return str(int(value))
    return f"{int((value * 1000).to_integral_value(ROUND_CEILING))}m"


@final
@total_ordering
class Quantity:
    """Amount of a resource. Immutable; equal if the values are equal, in any notation."""

    __slots__ = ("_text", "_value")

    _text: str
    _value: Decimal

    def __init__(self, amount: "str | float | Decimal | Quantity") -> None:
        """Parses an amount.

        Raises:
            ValueError: The text is not a quantity.
        """
        if isinstance(amount, Quantity):
            self._value, self._text = amount._value, amount._text
        elif isinstance(amount, str):
            self._value, self._text = _parse(amount), amount.strip()
        else:
            self._value = Decimal(str(amount))
            self._text = _plain(self._value)

    @classmethod
    def gib(cls, amount: int) -> Self:
        """Returns `amount` gibibytes."""
        return cls(f"{amount}Gi")

    @classmethod
    def of_bytes(cls, count: int) -> Self:
        """Returns a number of bytes with the largest exact binary suffix, from `Mi` up."""
        for suffix, unit in _BINARY:
            if count and count % unit == 0:
                return cls(f"{count // unit}{suffix}")
        return cls(str(count))

    @property
    def value(self) -> Decimal:
        """The amount in base units: cores, bytes, devices."""
        return self._value

    @property
    def milli(self) -> int:
        """Thousandths of the base unit, rounded up."""
        return int((self._value * 1000).to_integral_value(ROUND_CEILING))

    def __int__(self) -> int:
        """Whole base units, rounded up."""
        return int(self._value.to_integral_value(ROUND_CEILING))

    def __float__(self) -> float:
        return float(self._value)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __add__(self, other: "Quantity") -> "Quantity":
        return Quantity(self._value + other._value)

    def __sub__(self, other: "Quantity") -> "Quantity":
        return Quantity(self._value - other._value)

    def __mul__(self, factor: int) -> "Quantity":
        return Quantity(self._value * factor)

    def __eq__(self, other: object) -> bool:
        return self._value == other._value if isinstance(other, Quantity) else NotImplemented

    def __lt__(self, other: "Quantity") -> bool:
        return self._value < other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Quantity({self._text!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Accepts text and numbers, writes text."""
        return core_schema.no_info_plain_validator_function(
            _validated,
            serialization=core_schema.plain_serializer_function_ser_schema(str, return_schema=core_schema.str_schema()),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Returns the schema that controller-tools generates for `resource.Quantity`."""
        return {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": _SCHEMA_PATTERN,
            "x-kubernetes-int-or-string": True,
        }


@lru_cache(maxsize=4096)
def _of_text(text: str) -> Quantity:
    """Parses an amount; nodes and pods repeat few texts, and quantities are immutable."""
    return Quantity(text)


def _validated(amount: Any) -> Quantity:
    if type(amount) is str and len(amount) <= _LONGEST_CACHED:
        return _of_text(amount)
    if isinstance(amount, str | int | float | Decimal | Quantity) and not isinstance(amount, bool):
        return Quantity(amount)
    message = f"a quantity is text or a number, not {type(amount).__name__}"
    raise ValueError(message)
