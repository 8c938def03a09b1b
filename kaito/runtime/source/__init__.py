"""Sources: where a controller's events come from.

A `KindSource` watches a kind through the cache's informer, a `ChannelSource` takes events that the program itself
sends, a `FunctionSource` runs a function that adds keys, and anything else with `start` will do (`Source`). The
controller starts each with its queue and waits until `synced` before it starts workers.
"""

from kaito.runtime.cache.event import (
    Event as Event,
    EventType as EventType,
    Snapshot as Snapshot,
    generic as generic,
    generic_key as generic_key,
)
from kaito.runtime.source.channel import Channel as Channel, ChannelSource as ChannelSource
from kaito.runtime.source.function import Feed as Feed, FunctionSource as FunctionSource
from kaito.runtime.source.kind import KindSource as KindSource
from kaito.runtime.source.source import Source as Source, StartedSource as StartedSource
