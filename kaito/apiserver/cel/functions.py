"""The CEL libraries that Kubernetes adds: optionals, strings, lists, URLs, IPs and quantities.

Reference: "CEL in Kubernetes", section "Kubernetes list library" and following.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from celpy import celtypes
from celpy.evaluation import CELEvalError, bool_eq, bool_ne

from kaito.apiserver.cel.values import CelValue, Optional
from kaito.apiserver.schema.quantities import parse_quantity

IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_string = celtypes.StringType
_int = celtypes.IntType


def _bool(value: object) -> celtypes.BoolType:
    return celtypes.BoolType(bool(value))


def _optional_field(value: CelValue, name: CelValue) -> Optional:
    holder = value if isinstance(value, Optional) else Optional(value)
    return holder.field(str(name))


def _optional_index(value: CelValue, key: CelValue) -> Optional:
    holder = value if isinstance(value, Optional) else Optional(value)
    if not holder.present:
        return holder
    if isinstance(holder.value, celtypes.ListType):
        position = int(key)
        return Optional(holder.value[position]) if 0 <= position < len(holder.value) else Optional.none()
    return holder.field(str(key))


def _value(optional: CelValue) -> CelValue:
    if not optional.present:
        raise CELEvalError("optional.none() dereference")
    return optional.value


def _sum(items: CelValue) -> CelValue:
    total: CelValue = _int(0)
    for item in items:
        total = item if total == 0 else total + item
    return total


def _extreme(choose: Callable[..., CelValue], name: str) -> Callable[[CelValue], CelValue]:
    def pick(items: CelValue) -> CelValue:
        if not items:
            raise CELEvalError(f"{name} called on empty list")
        return choose(items)

    return pick


def _is_sorted(items: CelValue) -> celtypes.BoolType:
    pairs = pairwise(items)
    return _bool(all(bool(first <= second) for first, second in pairs))


def _index_of(holder: CelValue, item: CelValue) -> CelValue:
    if isinstance(holder, str):
        return _int(holder.find(item))
    return _int(next((index for index, entry in enumerate(holder) if entry == item), -1))


def _last_index_of(holder: CelValue, item: CelValue) -> CelValue:
    if isinstance(holder, str):
        return _int(holder.rfind(item))
    return _int(max((index for index, entry in enumerate(holder) if entry == item), default=-1))


def _substring(text: CelValue, start: CelValue, end: CelValue = None) -> CelValue:
    stop = len(text) if end is None else int(end)
    if not 0 <= int(start) <= stop <= len(text):
        raise CELEvalError(f"index out of range: {start}")
    return _string(text[int(start) : stop])


def _find(text: CelValue, pattern: CelValue) -> CelValue:
    match = re.search(str(pattern), str(text))
    return _string(match[0] if match else "")


def _find_all(text: CelValue, pattern: CelValue, limit: CelValue = -1) -> CelValue:
    found = [_string(match[0]) for match in re.finditer(str(pattern), str(text))]
    return celtypes.ListType(found if int(limit) < 0 else found[: int(limit)])


def _replace(text: CelValue, old: CelValue, new: CelValue, limit: CelValue = -1) -> CelValue:
    return _string(str(text).replace(old, new, int(limit)))


def _split(text: CelValue, separator: CelValue, limit: CelValue = -1) -> CelValue:
    count = int(limit)
    parts = list(text) if not separator else str(text).split(separator, count - 1 if count > 0 else -1)
    return celtypes.ListType([_string(part) for part in parts])


def _join(items: CelValue, separator: CelValue = "") -> CelValue:
    return _string(str(separator).join(str(item) for item in items))


def _format(text: CelValue, values: CelValue) -> CelValue:
    given = iter(values)

    def fill(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        value = next(given)
        precision, letter = match[1], match[2]
        if letter == "f":
            return f"{float(value):.{precision or 6}f}"
        if letter in "xXob":
            return format(int(value), letter)
        if isinstance(value, celtypes.BoolType):
            return "true" if value else "false"
        return str(int(value)) if letter == "d" else str(value)

    return _string(re.sub(r"%%|%(?:\.(\d+))?([sdfxXob])", fill, text))


def _url(text: CelValue) -> SplitResult:
    try:
        parts = urlsplit(str(text))
        _ = parts.port
    except ValueError as error:
        raise CELEvalError(f"URL parse error during conversion from string: {error}") from error
    if not parts.scheme and not text.startswith("/"):
        raise CELEvalError(f"URL parse error during conversion from string: parse {text!r}: invalid URI for request")
    return parts


def _parses(parse: Callable[[CelValue], object]) -> Callable[[CelValue], celtypes.BoolType]:
    def check(value: CelValue) -> celtypes.BoolType:
        try:
            parse(value)
        except (ValueError, CELEvalError):
            return _bool(False)  # noqa: FBT003 - a value, not a switch
        return _bool(True)  # noqa: FBT003

    return check


def _ip(text: CelValue) -> IpAddress:
    return ipaddress.ip_address(str(text))


def _compare(first: Decimal, second: Decimal) -> CelValue:
    return _int((first > second) - (first < second))


def _has_value(optional: Optional) -> CelValue:
    return _bool(optional.present)


def _or_value(optional: Optional, other: CelValue) -> CelValue:
    return optional.value if optional.present else other


def _or(optional: Optional, other: Optional) -> Optional:
    return optional if optional.present else other


def _char_at(text: str, index: int) -> CelValue:
    return _string(text[int(index)] if 0 <= int(index) < len(text) else "")


def _of_text(change: Callable[[str], str]) -> Callable[[CelValue], CelValue]:
    return lambda text: _string(change(str(text)))


def _of_url(pick: Callable[[SplitResult], str]) -> Callable[[SplitResult], CelValue]:
    return lambda url: _string(pick(url))


def _of_ip(check: Callable[[IpAddress], bool]) -> Callable[[IpAddress], CelValue]:
    return lambda address: _bool(check(address))


def _family(address: IpAddress) -> CelValue:
    return _int(address.version)


def _quantity(text: CelValue) -> Decimal:
    return parse_quantity(str(text))


def _greater(first: Decimal, second: Decimal) -> CelValue:
    return _bool(first > second)


def _less(first: Decimal, second: Decimal) -> CelValue:
    return _bool(first < second)


def _as_integer(value: Decimal) -> CelValue:
    return _int(int(value))


def _as_float(value: Decimal) -> CelValue:
    return celtypes.DoubleType(float(value))


def _equal(left: CelValue, right: CelValue) -> CelValue:
    """CEL's `==`: anything may be compared with null, which cel-python refuses for maps and lists."""
    if left is None or right is None:
        return celtypes.BoolType(left is right)
    return bool_eq(left, right)


def _unequal(left: CelValue, right: CelValue) -> CelValue:
    if left is None or right is None:
        return celtypes.BoolType(left is not right)
    return bool_ne(left, right)


FUNCTIONS: dict[str, Callable[..., CelValue]] = {
    "_==_": _equal,
    "_!=_": _unequal,
    "optionalField": _optional_field,
    "optionalIndex": _optional_index,
    "hasValue": _has_value,
    "value": _value,
    "orValue": _or_value,
    "or": _or,
    "sum": _sum,
    "min": _extreme(min, "min"),
    "max": _extreme(max, "max"),
    "isSorted": _is_sorted,
    "indexOf": _index_of,
    "lastIndexOf": _last_index_of,
    "charAt": _char_at,
    "lowerAscii": _of_text(str.lower),
    "upperAscii": _of_text(str.upper),
    "trim": _of_text(str.strip),
    "substring": _substring,
    "replace": _replace,
    "split": _split,
    "join": _join,
    "find": _find,
    "findAll": _find_all,
    "format": _format,
    "url": _url,
    "isURL": _parses(_url),
    "getScheme": _of_url(lambda url: url.scheme),
    "getHost": _of_url(lambda url: url.netloc.rpartition("@")[2]),
    "getHostname": _of_url(lambda url: url.hostname or ""),
    "getPort": _of_url(lambda url: "" if url.port is None else str(url.port)),
    "getEscapedPath": _of_url(lambda url: url.path),
    "isIP": _parses(_ip),
    "ip": _ip,
    "family": _family,
    "isLoopback": _of_ip(lambda address: address.is_loopback),
    "isLinkLocalUnicast": _of_ip(lambda address: address.is_link_local),
    "isUnspecified": _of_ip(lambda address: address.is_unspecified),
    "isCIDR": _parses(lambda text: ipaddress.ip_network(str(text), strict=False)),
    "isQuantity": _parses(_quantity),
    "quantity": _quantity,
    "compareTo": _compare,
    "isGreaterThan": _greater,
    "isLessThan": _less,
    "asInteger": _as_integer,
    "asApproximateFloat": _as_float,
}
