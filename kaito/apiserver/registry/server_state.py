"""The state that all request handlers share: registry, store, clock and random source."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from ipaddress import IPv4Network

from kaito.apiserver.registry.resources import Registry
from kaito.apiserver.registry.store import Store

_NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Letters of generated name suffixes: no vowels, no look-alikes (apimachinery `util/rand`)."""


DEFAULT_SERVICE_RANGE = IPv4Network("10.0.0.0/16")


@dataclass(slots=True)
class ServerState:
    """The shared state of one server."""

    registry: Registry
    store: Store
    now: Callable[[], datetime]
    rng: random.Random
    tokens: dict[str, str] = field(default_factory=dict[str, str])
    """Bearer tokens and the users they stand for."""
    service_range: IPv4Network = DEFAULT_SERVICE_RANGE
    """Range of cluster IPs (`--service-cluster-ip-range`)."""
    _dated: datetime | None = None
    _date: str = ""
    """The header `Date` of responses in the second `_dated`."""

    def timestamp(self) -> str:
        """Returns the current time as `metav1.Time` prints it."""
        return timestamp(self.now())

    def http_date(self) -> str:
        """Returns the current time as the header `Date` of a response."""
        now = self.now().astimezone(UTC).replace(microsecond=0)
        if self._dated != now:
            self._dated, self._date = now, format_datetime(now, usegmt=True)
        return self._date

    def new_uid(self) -> str:
        """Returns a fresh uid."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def name_suffix(self) -> str:
        """Returns the five random characters that complete a `generateName`."""
        return "".join(self.rng.choices(_NAME_LETTERS, k=5))


def timestamp(moment: datetime) -> str:
    """Returns a moment in RFC 3339, whole seconds, UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(slots=True)
class Context:
    """The identity behind a request, and the warnings for its response."""

    user: str
    groups: tuple[str, ...]
    manager: str
    """Field manager: the request's `fieldManager`, else the user agent's product."""
    warnings: list[str]
    dry_run: bool = False
    field_validation: str = "Warn"
    agent: str = ""
    """The request's user agent."""
