"""The manager: one process of an operator, started and stopped in order.

`Manager` is what users make, `Settings` what they tell it, `Runnable` what else it runs, `Cluster` where else it works.
Inside: `fleet` (what runs, in stages), `caches` and `declared` (what is kept in memory, for whom), `parts` (client,
cache and what is built on them), `serving` and `endpoints` (HTTP), `checks` (health), `pulse` (is the loop alive),
`leadership` (the seam to the lease), `process` (signals and exit codes).
"""

from kaito.runtime.manager.cluster import Cluster as Cluster
from kaito.runtime.manager.manager import Manager as Manager
from kaito.runtime.manager.runnable import (
    Background as Background,
    Runnable as Runnable,
    ShutdownTimedOut as ShutdownTimedOut,
    UnexpectedEnd as UnexpectedEnd,
)
from kaito.runtime.manager.settings import Settings as Settings
