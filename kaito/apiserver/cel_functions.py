"""The CEL libraries that Kubernetes adds: optionals, strings, lists, URLs, IPs and quantities.

Reference: "CEL in Kubernetes", section "Kubernetes list library" and following.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from decimal import Decimal
from urllib.parse import SplitResult, urlsplit

from celpy import celtypes
from celpy.evaluation import CELEvalError

from kaito.apiserver.cel_values import CelValue, Optional
from kaito.apiserver.quantities import parse_quantity

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
    pairs = zip(items, items[1:], strict=False)
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
    match = re.search(pattern, text)
    return _string(match[0] if match else "")


def _find_all(text: CelValue, pattern: CelValue, limit: CelValue = -1) -> CelValue:
    found = [_string(match[0]) for match in re.finditer(pattern, text)]
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


def _ip(text: CelValue) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(str(text))


def _compare(first: Decimal, second: Decimal) -> CelValue:
    return _int((first > second) - (first < second))


FUNCTIONS: dict[str, Callable[..., CelValue]] = {
    "optionalField": _optional_field,
    "optionalIndex": _optional_index,
    "hasValue": lambda optional: _bool(optional.present),
    "value": _value,
    "orValue": lambda optional, other: optional.value if optional.present else other,
    "or": lambda optional, other: optional if optional.present else other,
    "sum": _sum,
    "min": _extreme(min, "min"),
    "max": _extreme(max, "max"),
    "isSorted": _is_sorted,
    "indexOf": _index_of,
    "lastIndexOf": _last_index_of,
    "charAt": lambda text, index: _string(text[int(index)] if 0 <= int(index) < len(text) else ""),
    "lowerAscii": lambda text: _string(str(text).lower()),
    "upperAscii": lambda text: _string(str(text).upper()),
    "trim": lambda text: _string(str(text).strip()),
    "substring": _substring,
    "replace": _replace,
    "split": _split,
    "join": _join,
    "find": _find,
    "findAll": _find_all,
    "format": _format,
    "url": _url,
    "isURL": _parses(_url),
    "getScheme": lambda url: _string(url.scheme),
    "getHost": lambda url: _string(url.netloc.rpartition("@")[2]),
    "getHostname": lambda url: _string(url.hostname or ""),
    "getPort": lambda url: _string("" if url.port is None else str(url.port)),
    "getEscapedPath": lambda url: _string(url.path),
    "isIP": _parses(_ip),
    "ip": _ip,
    "family": lambda address: _int(address.version),
    "isLoopback": lambda address: _bool(address.is_loopback),
    "isLinkLocalUnicast": lambda address: _bool(address.is_link_local),
    "isUnspecified": lambda address: _bool(address.is_unspecified),
    "isCIDR": _parses(lambda text: ipaddress.ip_network(str(text), strict=False)),
    "isQuantity": _parses(lambda text: parse_quantity(str(text))),
    "quantity": lambda text: parse_quantity(str(text)),
    "compareTo": _compare,
    "isGreaterThan": lambda first, second: _bool(first > second),
    "isLessThan": lambda first, second: _bool(first < second),
    "asInteger": lambda value: _int(int(value)),
    "asApproximateFloat": lambda value: celtypes.DoubleType(float(value)),
}
