"""An asyncio controller framework for Kubernetes, in controller-runtime's shape. The guided tour:

    from kaito.runtime import Again, Controller, Manager, Model, Request, Resource, Settings
    from kaito.runtime.kinds import Deployment

**Kinds** are pydantic models. `Resource` is the base of a kind, `Model` of every struct inside one; `ObjectMeta`,
`ObjectKey`, `OwnerReference`, `Condition`, `LabelSelector` and `Quantity` are the API's vocabulary. Built-in kinds are
in `kaito.runtime.kinds`; `kaito.runtime.crd` makes a CustomResourceDefinition from yours.

**Reconciling** is one async function per kind. It gets a `Request` (the object, and an `Api` to read and write with)
and returns None, or `Again(after, why)` to request a requeue. An exception is retried with `Backoff`; `Terminal` is not
retried until something changes. A `Controller` declares what triggers the function and the limits of a reconcile:

    controller = Controller(Memcached, reconcile, workers=4).owns(Deployment, when=changed("status.readyReplicas"))

**Running**: a `Manager`, configured by `Settings`, starts caches, controllers, probes and metrics in order, renews the
lease, and shuts down gracefully on a signal.

    Manager(Settings.from_env(), controllers=[controller], lease="memcached-operator").run()

With `shards=Shards(8)` (of `kaito.runtime.manager`) all replicas work, each on its part of the keys.

**Reading** uses the cache, which always contains at least the writes of this process. Watched kinds are cached; other
kinds are declared with `Cached` (selectors, namespaces, metadata only) and `Index`es, in the controller that needs them
or in the manager. A `View` gives mappers synchronous reads of the cache. `Client` sends requests to the API server;
errors of the server are `ApiError`s, for example `NotFound`, `AlreadyExists` and `Conflict` (all are in
`kaito.runtime.errors`).

**Testing** uses `kaito.runtime.testing`: an in-memory cluster in virtual time.

Names are loaded on first use, so that importing the data types does not load the network.
"""

from typing import TYPE_CHECKING, Any

from kaito.runtime.lazy import load

if TYPE_CHECKING:
    from kaito.runtime.cache import Cached, Index, View
    from kaito.runtime.client import Api, Client
    from kaito.runtime.controller import Controller
    from kaito.runtime.errors import AlreadyExists, ApiError, Conflict, NotFound, Terminal
    from kaito.runtime.manager import Manager, Settings
    from kaito.runtime.meta import (
        Condition,
        LabelSelector,
        Model,
        ObjectKey,
        ObjectMeta,
        OwnerReference,
        Quantity,
        Resource,
    )
    from kaito.runtime.predicate import changed
    from kaito.runtime.reconcile import Again, Request
    from kaito.runtime.workqueue import Backoff

__all__ = [
    "Again",
    "AlreadyExists",
    "Api",
    "ApiError",
    "Backoff",
    "Cached",
    "Client",
    "Condition",
    "Conflict",
    "Controller",
    "Index",
    "LabelSelector",
    "Manager",
    "Model",
    "NotFound",
    "ObjectKey",
    "ObjectMeta",
    "OwnerReference",
    "Quantity",
    "Request",
    "Resource",
    "Settings",
    "Terminal",
    "View",
    "changed",
]

_HOMES = {
    "cache": ("Cached", "Index", "View"),
    "client": ("Api", "Client"),
    "controller": ("Controller",),
    "errors": ("AlreadyExists", "ApiError", "Conflict", "NotFound", "Terminal"),
    "manager": ("Manager", "Settings"),
    "meta": (
        "Condition",
        "LabelSelector",
        "Model",
        "ObjectKey",
        "ObjectMeta",
        "OwnerReference",
        "Quantity",
        "Resource",
    ),
    "predicate": ("changed",),
    "reconcile": ("Again", "Request"),
    "workqueue": ("Backoff",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Loads a name from its module."""
    return load(__name__, name, _HOME_OF)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
