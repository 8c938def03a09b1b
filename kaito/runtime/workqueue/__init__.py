"""Work queues: deduplication, priorities, delays and rate limits of the keys to reconcile.

Sources add keys and workers take them; `kaito.runtime.controller` has one queue per controller.
"""

from kaito.runtime.workqueue.backoff import Backoff as Backoff
from kaito.runtime.workqueue.cause import Cause as Cause, merge_causes as merge_causes
from kaito.runtime.workqueue.limiter import (
    BucketLimiter as BucketLimiter,
    ExponentialLimiter as ExponentialLimiter,
    MaxOfLimiter as MaxOfLimiter,
    RateLimiter as RateLimiter,
)
from kaito.runtime.workqueue.queue import (
    AGING_STEP_SECONDS as AGING_STEP_SECONDS,
    Item as Item,
    QueueRow as QueueRow,
    WorkQueue as WorkQueue,
)
from kaito.runtime.workqueue.stats import Buckets as Buckets, QueueStats as QueueStats
