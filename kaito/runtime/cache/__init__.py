"""Informers and the cache: objects of declared kinds, kept in memory and updated by watches.

`Cached` and `Index` declare what to keep, `Cache` holds it and serves reads, `View` offers synchronous reads to
mappers, `Derived` keeps a value of each object, `Informer` delivers changes to handlers as `Event`s, and `following`
does so for scripts. Modules, from the network up: `collection` (addresses), `watch` (one stream), `reflector` (the
list/watch protocol), `entry`, `labels` and `store` (objects as text), `shard` (what a fill or an event changes),
`delivery` (one handler), `own_writes` (read-your-writes), `informer`, `cache`, `derived`.
"""

from kaito.runtime.cache.cache import Cache as Cache, InformerRef as InformerRef
from kaito.runtime.cache.declaration import ALL_NAMESPACES as ALL_NAMESPACES, Cached as Cached
from kaito.runtime.cache.delivery import Subscription as Subscription
from kaito.runtime.cache.derived import Derived as Derived
from kaito.runtime.cache.entry import Header as Header, Owner as Owner
from kaito.runtime.cache.event import (
    Event as Event,
    EventType as EventType,
    Snapshot as Snapshot,
    generic as generic,
    generic_key as generic_key,
)
from kaito.runtime.cache.following import following as following
from kaito.runtime.cache.index import Index as Index
from kaito.runtime.cache.informer import Informer as Informer, InformerHealth as InformerHealth
from kaito.runtime.cache.options import NamespaceOptions as NamespaceOptions, Transform as Transform
from kaito.runtime.cache.stats import KindStats as KindStats
from kaito.runtime.cache.view import View as View
from kaito.runtime.errors import UnreadableObject as UnreadableObject
