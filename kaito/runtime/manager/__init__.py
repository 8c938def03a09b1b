"""The manager: runs the controllers, webhooks and servers of one operator process.

Users make a `Manager` from `Settings`, and give it `Runnable`s for other work and `Cluster`s besides its own. Inside:
`runnable_groups` (start and stop order), `caches` and `cache_plan` (what is cached, for which controllers), `assembly`
(client, cache and what is built on them), `http` (probes, metrics, debugging), `health` (checks, watchdog of the event
loop), `lifespan` (resources of the process), `leadership` and `election` (the lease), `threads` (work in threads),
`process` (signals and exit codes).
"""

from kaito.runtime.manager.cluster import Cluster as Cluster
from kaito.runtime.manager.dynamic_clusters import DynamicClusters as DynamicClusters, HomeServices as HomeServices
from kaito.runtime.manager.manager import Lifespan as Lifespan, Manager as Manager
from kaito.runtime.manager.runnable import (
    Background as Background,
    Runnable as Runnable,
    ShutdownTimedOut as ShutdownTimedOut,
    UnexpectedEnd as UnexpectedEnd,
)
from kaito.runtime.manager.settings import Settings as Settings
from kaito.runtime.manager.sharding import Shards as Shards
