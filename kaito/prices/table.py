"""Reads tables of prices in YAML: the user's table, and the one in this package, which has the same schema.

    currency   code of the currency, for example USD
    asOf       day of the prices, for example 2026-11-01
    source     where they are from
    prices     rows with cloud, region, instanceType, onDemand and spot, in units of the currency per hour

A row of one region has precedence over a row with the region `*`. A price that is missing is unknown.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast, final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kaito.prices.price import CapacityType, Offering, Price

CONFIG_MAP_KEY: Final = "prices.yaml"
"""Key of the table in a ConfigMap."""

EVERY_REGION: Final = "*"

MAX_BYTES: Final = 4 * 2**20
"""Size limit of a table; about 40,000 rows."""

_MAX_PROBLEMS: Final = 5

_Amount = Annotated[Decimal, Field(gt=0, lt=Decimal(1_000_000), allow_inf_nan=False)]
_Name = Annotated[str, Field(min_length=1, max_length=253)]


class PriceTableError(ValueError):
    """A table of prices is not valid; the message contains the file and each wrong field."""


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, defer_build=True)


class _Row(_Schema):
    cloud: Literal["azure", "aws", "arc"] = "azure"
    region: _Name
    instance_type: _Name = Field(alias="instanceType")
    on_demand: _Amount | None = Field(default=None, alias="onDemand")
    spot: _Amount | None = None


class _Document(_Schema):
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"
    as_of: date | None = Field(default=None, alias="asOf")
    source: str = ""
    prices: list[_Row]


@final
@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices by offering, all in one currency and from one source."""

    prices: Mapping[Offering, Price]

    def find(self, offering: Offering) -> Price | None:
        """Returns the price of an offering; None if the table does not contain it."""
        region = offering.region.strip().lower()
        for wanted in (region, EVERY_REGION) if region else (EVERY_REGION,):
            key = _key(offering.cloud, wanted, offering.instance_type, offering.capacity_type)
            if key in self.prices:
                return self.prices[key]
        return None

    def regions(self, cloud: str, instance_type: str, capacity_type: CapacityType) -> dict[str, Price]:
        """Returns the prices of an instance type by region."""
        wanted = instance_type.strip().lower()
        return {
            offering.region: price
            for offering, price in self.prices.items()
            if (offering.cloud, offering.instance_type, offering.capacity_type) == (cloud, wanted, capacity_type)
        }


def read_table(path: Path) -> PriceTable:
    """Returns the table of a YAML file, which may be a ConfigMap with the key `prices.yaml`.

    Raises:
        PriceTableError: the file cannot be read, or is not a table of prices.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise PriceTableError(f"{path}: cannot be read: {reason or error}") from error
    if len(content) > MAX_BYTES:
        raise PriceTableError(f"{path}: is larger than {MAX_BYTES >> 20} MiB: remove rows")
    return parse_table(text, str(path))


def parse_table(text: str, name: str) -> PriceTable:
    """Returns the table of a YAML text.

    Args:
        text: the table, or a ConfigMap that contains it.
        name: of the file or object, for messages and as the source of prices without a `source`.

    Raises:
        PriceTableError: it is not a table of prices.
    """
    document = _mapping(text, name)
    if document.get("kind") == "ConfigMap":
        data: Any = document.get("data")
        inner: Any = cast("dict[str, Any]", data).get(CONFIG_MAP_KEY) if isinstance(data, dict) else None
        if not isinstance(inner, str):
            raise PriceTableError(f"{name}: the ConfigMap has no key {CONFIG_MAP_KEY!r}: store the table under it")
        document = _mapping(inner, f"{name}, {CONFIG_MAP_KEY}")
    try:
        parsed = _Document.model_validate(document)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        problems = [_problem(detail["loc"], detail["msg"], detail["input"]) for detail in details[:_MAX_PROBLEMS]]
        more = len(details) - len(problems)
        problems += [f"and {more} more"] if more > 0 else []
        raise PriceTableError(f"{name}: {'; '.join(problems)}") from error
    return PriceTable(_prices(parsed, name))


def _mapping(text: str, name: str) -> dict[str, Any]:
    try:
        loaded: object = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - safe
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark: Any = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise PriceTableError(f"{name}: is not YAML{where}") from error
    if not isinstance(loaded, dict):
        raise PriceTableError(f"{name}: is not a table of prices: expected a mapping with the list `prices`")
    return cast("dict[str, Any]", loaded)


def _problem(location: Iterable[int | str], message: str, given: object) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    text = message.replace("Input should", "should").replace("Field required", "is missing")
    text = text.replace("Extra inputs are not permitted", "is not a field")
    shown = repr(given)
    if not isinstance(given, dict | list):
        text += f", found {shown if len(shown) <= 40 else shown[:37] + '...'}"
    if given in (0, "0") and path.rpartition(".")[2] in {"onDemand", "spot"}:
        text += ": leave it out if the price is unknown"
    return f"{path}: {text}"


def _prices(document: _Document, name: str) -> dict[Offering, Price]:
    found: dict[Offering, Price] = {}
    for index, row in enumerate(document.prices):
        amounts: tuple[tuple[CapacityType, Decimal | None], ...] = (("on-demand", row.on_demand), ("spot", row.spot))
        for capacity_type, per_hour in amounts:
            if per_hour is None:
                continue
            key = _key(row.cloud, row.region, row.instance_type, capacity_type)
            if key in found:
                raise PriceTableError(
                    f"{name}: prices[{index}]: {row.instance_type} in {row.region} has two {capacity_type} prices: "
                    "remove one"
                )
            found[key] = Price(
                per_hour=per_hour,
                currency=document.currency,
                capacity_type=capacity_type,
                source=document.source or name,
                as_of=document.as_of,
            )
    return found


def _key(cloud: str, region: str, instance_type: str, capacity_type: CapacityType) -> Offering:
    return Offering(cloud, region.strip().lower(), instance_type.strip().lower(), capacity_type)
