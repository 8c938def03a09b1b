"""String formats of OpenAPI schemas, those that the real server checks (`kube-openapi/pkg/validation/strfmt`)."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import uuid
from collections.abc import Callable
from datetime import date

_DATE_TIME = re.compile(r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$")
_DURATION = re.compile(
    r"^([+-]?(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)?\s*)+$|^\d+\s*(d|days?|w|weeks?|hours?|minutes?|seconds?)$"
)
_HOSTNAME = re.compile(
    r"^(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$"
)
_SHORT_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
_LONG_NAME = re.compile(r"^(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_MAC = re.compile(r"^([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}$")
_EMAIL = re.compile(r"^[^@\s]+@[^@\s]+$")
_URI = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*:|/)\S*$")


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(value: str) -> bool:
        try:
            parse(value)
        except (ValueError, binascii.Error):
            return False
        return True

    return check


_CHECKS: dict[str, Callable[[str], bool]] = {
    "date-time": lambda value: _DATE_TIME.match(value) is not None,
    "datetime": lambda value: _DATE_TIME.match(value) is not None,
    "date": _parses(date.fromisoformat),
    "duration": lambda value: _DURATION.match(value) is not None,
    "byte": _parses(lambda value: base64.b64decode(value, validate=True)),
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "cidr": _parses(lambda value: ipaddress.ip_network(value, strict=False)),
    "mac": lambda value: _MAC.match(value) is not None,
    "uuid": _parses(uuid.UUID),
    "hostname": lambda value: _HOSTNAME.match(value) is not None,
    "email": lambda value: _EMAIL.match(value) is not None,
    "uri": lambda value: _URI.match(value) is not None,
    "k8s-short-name": lambda value: _SHORT_NAME.match(value) is not None,
    "k8s-long-name": lambda value: _LONG_NAME.match(value) is not None,
}


def matches_format(value: str, name: str) -> bool:
    """Returns whether a string has a format; formats that the server does not know are never violated."""
    check = _CHECKS.get(name)
    return check is None or check(value)
