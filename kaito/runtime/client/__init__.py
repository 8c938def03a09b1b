"""Clients of the API server: `Transport`, the typed `Client` on top of it, and `Api`, which reconcilers use.

`Client` reads and writes live. `Api` reads from the manager's cache, with read-your-writes consistency, and fences its
writes with the lease. `Transport` is implemented by HTTP connections and by the in-memory API server.
"""

from typing import TYPE_CHECKING, Any

from kaito.runtime.client.agent import user_agent as user_agent
from kaito.runtime.client.api import Api as Api
from kaito.runtime.client.client import Client as Client
from kaito.runtime.client.codec import ResourceList as ResourceList
from kaito.runtime.client.config import ClusterConfig as ClusterConfig, NoCredentials as NoCredentials
from kaito.runtime.client.connect import connect as connect, find_cluster_config as find_cluster_config
from kaito.runtime.client.consistency import Consistency as Consistency, IndexKey as IndexKey, Reader as Reader
from kaito.runtime.client.delete_result import DeleteResult as DeleteResult
from kaito.runtime.client.events import EventSink as EventSink
from kaito.runtime.client.field_conflicts import (
    FieldConflict as FieldConflict,
    apply_and_report as apply_and_report,
    apply_conflicts as apply_conflicts,
    field_conflicts as field_conflicts,
)
from kaito.runtime.client.intercept import Interceptor as Interceptor
from kaito.runtime.client.observe import RequestObserver as RequestObserver
from kaito.runtime.client.patch import JsonPatch as JsonPatch, MergePatch as MergePatch, Patch as Patch
from kaito.runtime.client.proxy import is_loopback as is_loopback
from kaito.runtime.client.rest_mapping import Discovery as Discovery, RestMapping as RestMapping
from kaito.runtime.client.sender import ApiRequest as ApiRequest, failure as failure
from kaito.runtime.client.status import ConditionUpdate as ConditionUpdate, StatusScope as StatusScope
from kaito.runtime.client.transport import Reply as Reply, StreamReply as StreamReply, Transport as Transport
from kaito.runtime.lazy import load

if TYPE_CHECKING:
    from kaito.runtime.client.definitions import (
        AppliedDefinition as AppliedDefinition,
        DefinitionNotServed as DefinitionNotServed,
        Migration as Migration,
        apply_definitions as apply_definitions,
        migrate_stored_versions as migrate_stored_versions,
    )
    from kaito.runtime.client.http import HttpTransport as HttpTransport
    from kaito.runtime.client.pods import Pods as Pods
    from kaito.runtime.client.subresources import (
        AccountToken as AccountToken,
        Scale as Scale,
        read_scale as read_scale,
        request_token as request_token,
    )


_MODULE_OF = {
    "AccountToken": "subresources",
    "AppliedDefinition": "definitions",
    "DefinitionNotServed": "definitions",
    "HttpTransport": "http",
    "Migration": "definitions",
    "Pods": "pods",
    "Scale": "subresources",
    "apply_definitions": "definitions",
    "migrate_stored_versions": "definitions",
    "read_scale": "subresources",
    "request_token": "subresources",
}
"""Names that most processes do not use, and whose modules load kinds."""


def __getattr__(name: str) -> Any:
    """Loads a name from its module."""
    return load(__name__, name, _MODULE_OF)
