"""Controllers: sources fill a queue, workers empty it by calling a reconcile function.

`Controller` is what a user declares; `Controller.every` and `Controller.keyed` make controllers without a kind. All
share `RunOptions`. The manager builds a `RunningController` from each: an `Engine`, its sources and its informers.
"""

from kaito.runtime.controller.build import (
    AnyController as AnyController,
    ControllerServices as ControllerServices,
    build as build,
)
from kaito.runtime.controller.cache_needs import (
    AnyCluster as AnyCluster,
    CacheNeed as CacheNeed,
    ClusterRef as ClusterRef,
    WatchedFields as WatchedFields,
)
from kaito.runtime.controller.cluster_sets import (
    BaseClusterSet as BaseClusterSet,
    Discard as Discard,
    cluster_of as cluster_of,
)
from kaito.runtime.controller.declaration import Controller as Controller
from kaito.runtime.controller.engine import Engine as Engine
from kaito.runtime.controller.failures import (
    Failure as Failure,
    FailurePolicy as FailurePolicy,
    FailureRow as FailureRow,
)
from kaito.runtime.controller.keyed import Keyed as Keyed
from kaito.runtime.controller.options import (
    DEADLINE_SECONDS as DEADLINE_SECONDS,
    RunKeywords as RunKeywords,
    RunOptions as RunOptions,
)
from kaito.runtime.controller.outcome import DeadlineExceeded as DeadlineExceeded
from kaito.runtime.controller.periodic import Periodic as Periodic
from kaito.runtime.controller.running import RunningController as RunningController
from kaito.runtime.controller.shard_hold import (
    ShardGate as ShardGate,
    ShardHold as ShardHold,
    current_shard_hold as current_shard_hold,
)
from kaito.runtime.controller.trace_origin import TraceOrigin as TraceOrigin, origin_of as origin_of
from kaito.runtime.handler import label_key as label_key
