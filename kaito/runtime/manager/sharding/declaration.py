"""`Shards`: how the keys of a manager's controllers are divided among its replicas."""

import zlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, cast, final

from kaito.runtime.errors import ConfigurationError

DEFAULT_COUNT: Final = 8
LARGEST_COUNT: Final = 256
"""Every shard has a lease, which its holder renews every few seconds."""


@final
@dataclass(frozen=True, slots=True)
class Shards:
    """The shards of a manager.

        Manager(settings, controllers=[controller], lease="memcached-operator", shards=Shards(8))
        Shards(16, by=lambda key: key.namespace)  # all objects of a namespace belong to one shard

    All replicas must have the same shards: two that divide the keys differently would reconcile the same key.

    Args:
        count: number of shards, at least the number of replicas; 1 to 256.
        by: returns the part of a key that decides its shard; the whole key by default.

    Raises:
        ConfigurationError: a number that is out of range.
    """

    count: int = DEFAULT_COUNT
    by: Callable[[Hashable], object] = str

    def __post_init__(self) -> None:
        """Validates."""
        count = cast("object", self.count)
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= LARGEST_COUNT:
            message = f"Shards(count={count!r}): a number from 1 to {LARGEST_COUNT} is needed"
            raise ConfigurationError(message)
        if not callable(cast("object", self.by)):
            message = f"Shards(by={self.by!r}): write by=lambda key: key.namespace"
            raise ConfigurationError(message)

    def shard_of(self, key: Hashable) -> int:
        """Returns the number of a key's shard, the same in every process."""
        return zlib.crc32(str(self.by(key)).encode()) % self.count
