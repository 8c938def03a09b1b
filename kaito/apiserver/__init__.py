"""An in-memory Kubernetes API server with the real wire protocol, for unit tests, simulations and `kaito up`.

It does not import `kaito.runtime`: both implement the same protocol independently, and the contract tests compare this
one with a real kube-apiserver. `ApiServer.handle` serves a request without any socket (also under a virtual-time event
loop); `serve` puts it on one. `Fault` injects failures. Every request is authorized unless RBAC is switched on. Not
implemented: priority and fairness, mutating admission policies, and of CEL the static checks of a real server (types of
expressions, estimated cost): a rule that a real server rejects for its cost is accepted. Served are the built-in kinds
that operators use, with the validation rules that apply to their manifests.
"""

from kaito.apiserver.auth.rbac import Denial
from kaito.apiserver.faults import ConnectionDropped, Fault
from kaito.apiserver.http import Listening, serve
from kaito.apiserver.registry.store import Backup
from kaito.apiserver.server import ApiServer, RequestRecord
from kaito.apiserver.webhook_client import call_webhook
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
    "RequestRecord",
    "call_webhook",
    "serve",
]
