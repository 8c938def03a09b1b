"""Validates the types of `Manager`'s arguments, so that a mistake fails at the call with the expected type."""

import re
from collections.abc import Iterable
from typing import Final, cast

from kaito.runtime.cache import Cached
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.manager.cluster import Cluster
from kaito.runtime.manager.runnable_groups import CONTROLLERS
from kaito.runtime.manager.settings import Settings
from kaito.runtime.meta import Resource

_LEASE_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
"""Approximately a DNS-1123 subdomain; the API server validates it in full."""

_EXPECTED: Final = {
    "controllers": ("Controller(...), Controller.every(...) and Controller.keyed(...)", CONTROLLERS),
    "cache": ("Cached(...)", (Cached,)),
    "clusters": ("Cluster(...)", (Cluster,)),
    "live": ("kinds", (type,)),
}


def check_lease(lease: object) -> None:
    """Raise ConfigurationError unless the value can be the name of a lease, or is None."""
    if lease is not None and (not isinstance(lease, str) or _LEASE_NAME.fullmatch(lease) is None):
        message = f"lease={lease!r}: lower case letters, digits, '-' and '.' only, as object names are"
        raise ConfigurationError(message)


def check_arguments(settings: object, **lists: object) -> None:
    """Raise ConfigurationError if an argument of `Manager` is of another type; the message names the expected one."""
    if settings is not None and not isinstance(settings, Settings):
        message = f"Manager(settings): {settings!r} is not Settings; controllers are given as controllers=[...]"
        raise ConfigurationError(message)
    for name, given in lists.items():
        expected, types = _EXPECTED[name]
        if isinstance(given, str) or not isinstance(given, Iterable):
            message = f"Manager({name}=...) takes a list of {expected}, not {given!r}"
            raise ConfigurationError(message)
        for each in cast("Iterable[object]", given):
            if not isinstance(each, types) or (isinstance(each, type) and not issubclass(each, Resource)):
                message = f"{name}= takes {expected}, not {each!r}"
                raise ConfigurationError(message)
