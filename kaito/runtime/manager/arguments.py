"""Validates the types of `Manager`'s arguments, so that a mistake fails at the call with the expected type."""

import re
from collections.abc import Iterable, Sequence
from typing import Final, cast

from kaito.runtime.cache import Cached
from kaito.runtime.client.checks import check_field_manager
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.manager.cluster import Cluster
from kaito.runtime.manager.dynamic_clusters import DynamicClusters
from kaito.runtime.manager.runnable_groups import CONTROLLERS
from kaito.runtime.manager.settings import Settings
from kaito.runtime.manager.sharding import Shards
from kaito.runtime.meta import Resource

_LEASE_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
"""Approximately a DNS-1123 subdomain; the API server validates it in full."""

_LABEL_LENGTH: Final = 63

_EXPECTED: Final = {
    "controllers": ("Controller(...), Controller.every(...) and Controller.keyed(...)", CONTROLLERS),
    "cache": ("Cached(...)", (Cached,)),
    "clusters": ("Cluster(...) and ClusterSet(...)", (Cluster, DynamicClusters)),
    "live": ("kinds", (type,)),
}


def check_arguments(settings: object, **lists: object) -> None:
    """Raises ConfigurationError if an argument of `Manager` is of another type; the message names the expected one."""
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


def check_names(lease: object, shards: object, field_managers: Sequence[str]) -> None:
    """Raises ConfigurationError if a lease or a field manager has a name that the API server rejects."""
    if lease is not None and not (isinstance(lease, str) and _LEASE_NAME.fullmatch(lease)):
        message = f"lease={lease!r}: lower case letters, digits, '-' and '.' only, as object names are"
        raise ConfigurationError(message)
    for name in field_managers:
        check_field_manager(name)
    if shards is None:
        return
    if not isinstance(shards, Shards):
        message = f"Manager(shards=...) takes Shards(8), not {shards!r}"
        raise ConfigurationError(message)
    if lease is None:
        message = "shards= needs lease=: the leases of the shards have its name, too"
        raise ConfigurationError(message)
    if len(str(lease)) > _LABEL_LENGTH:
        message = f"lease={lease!r}: with shards= at most {_LABEL_LENGTH} characters, because it is a label value"
        raise ConfigurationError(message)
