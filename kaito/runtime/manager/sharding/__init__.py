"""Sharding: several replicas reconcile at the same time, each the keys of the shards whose leases it holds.

declaration   `Shards`: the number of shards, and which keys belong together
membership    pure functions: the live replicas, and how many shards each of them holds
coordinator   acquires, renews, hands over and releases the leases
"""

from kaito.runtime.manager.sharding.coordinator import ShardCoordinator as ShardCoordinator
from kaito.runtime.manager.sharding.declaration import Shards as Shards
