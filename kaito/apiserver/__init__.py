"""An in-memory Kubernetes API server that speaks the real wire protocol.

For unit tests, simulations and `kaito up`. It knows nothing of `kaito.runtime`: both implement the same protocol
independently, and the contract tests compare this one with a real kube-apiserver. `ApiServer.handle` serves a request
without any socket (also under a virtual-time event loop); `serve` puts it on one. `Fault` scripts trouble.

Everybody may do everything unless it is told to ask RBAC. Not here: priority and fairness, mutating admission policies,
and of CEL the static checks of a real server (types of expressions, estimated cost): a rule that is refused there for
its cost is accepted here. Of the built-in kinds those are served that operators meet, with the rules that their
manifests meet.
"""

from kaito.apiserver.auth.rbac import Denial
from kaito.apiserver.faults import ConnectionDropped, Fault
from kaito.apiserver.http import Listening, serve
from kaito.apiserver.registry.store import Backup
from kaito.apiserver.server import ApiServer
from kaito.apiserver.wire import HttpRequest, HttpResponse

__all__ = [
    "ApiServer",
    "Backup",
    "ConnectionDropped",
    "Denial",
    "Fault",
    "HttpRequest",
    "HttpResponse",
    "Listening",
    "serve",
]
