"""Sources of a controller's events (controller-runtime's source package).

A `KindSource` watches a kind through an informer, a `ChannelSource` receives events that the program sends, a
`PollingSource` polls values outside of the cluster, an `Inbound` receives HTTP calls, a `FunctionSource` runs a
function that adds keys; other classes may implement `Source`. The controller starts each with its queue and waits until
it is synced before it starts workers.
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
from kaito.runtime.source.inbound import (
    Inbound as Inbound,
    InboundCall as InboundCall,
    InboundEndpoint as InboundEndpoint,
    Reply as Reply,
    is_signed as is_signed,
)
from kaito.runtime.source.kind import KindSource as KindSource
from kaito.runtime.source.polling import Polled as Polled, Polling as Polling, PollRequest as PollRequest
from kaito.runtime.source.polling_source import PollingSource as PollingSource, PollServices as PollServices
from kaito.runtime.source.source import (
    Replayable as Replayable,
    Source as Source,
    StartedSource as StartedSource,
)
