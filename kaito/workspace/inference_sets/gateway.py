"""Publishes an InferenceSet to a Gateway: an InferencePool of its pods, and an HTTPRoute to the pool.

Only with `--inference-gateway`, and while the CRDs of the Gateway API and of its inference extension are installed. The
pool refers to an endpoint picker, a Service that the user installs (docs/guides/inference-sets.md); this controller
creates none. The condition `InferenceSetRouted` reports what the Gateway reports about both objects.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from kaito.api import InferenceSet, conditions
from kaito.runtime import Request
from kaito.runtime.client import ConditionUpdate
from kaito.runtime.errors import ApiError, CacheNotSynced, NotFound, UndeclaredKind
from kaito.runtime.kinds import Service
from kaito.runtime.meta import ObjectMeta, Resource
from kaito.workspace.failure import format_error, is_rejection
from kaito.workspace.inference_sets.service import pod_selector
from kaito.workspace.manifests.service import SERVER_PORT
from kaito.workspace.ownership import is_controller_of, name_conflict_message
from kaito.workspace.settings import WorkspaceSettings

PICKER_PORT: Final = 9002
"""Port of endpoint pickers, the default of the inference extension's chart."""


class InferencePool(Resource, api="inference.networking.k8s.io/v1", kind="InferencePool"):
    """The kind InferencePool of the Gateway API's inference extension."""

    spec: dict[str, Any] = {}
    status: dict[str, Any] = {}


class HTTPRoute(Resource, api="gateway.networking.k8s.io/v1", kind="HTTPRoute"):
    """The kind HTTPRoute of the Gateway API."""

    spec: dict[str, Any] = {}
    status: dict[str, Any] = {}


GATEWAY_KINDS: Final[tuple[type[InferencePool] | type[HTTPRoute], ...]] = (InferencePool, HTTPRoute)


def picker_name(inference_set: InferenceSet, settings: WorkspaceSettings) -> str:
    """Returns the name of the Service of the set's endpoint picker."""
    return settings.endpoint_picker.replace("{name}", inference_set.name)


def inference_pool(inference_set: InferenceSet, settings: WorkspaceSettings) -> InferencePool:
    """Returns the pool of the pods that serve requests for the set."""
    picker = {"name": picker_name(inference_set, settings), "port": {"number": PICKER_PORT}}
    return InferencePool(
        metadata=_metadata(inference_set),
        spec={
            "selector": {"matchLabels": pod_selector(inference_set)},
            "targetPorts": [{"number": SERVER_PORT}],
            "endpointPickerRef": picker,
        },
    )


def http_route(inference_set: InferenceSet, settings: WorkspaceSettings) -> HTTPRoute:
    """Returns the route from the Gateway to the pool, for the host `<set>.<namespace>`.

    The host separates the sets that share a Gateway; a Gateway with a listener for one host name may restrict it.
    """
    namespace, _, gateway = settings.inference_gateway.rpartition("/")
    pool = {"group": InferencePool.group(), "kind": InferencePool.kind, "name": inference_set.name}
    return HTTPRoute(
        metadata=_metadata(inference_set),
        spec={
            "parentRefs": [{"name": gateway, "namespace": namespace}],
            "hostnames": [f"{inference_set.name}.{inference_set.namespace}"],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                    "backendRefs": [pool],
                    "timeouts": {"request": "0s"},  # a completion may take minutes
                }
            ],
        },
    )


def _metadata(inference_set: InferenceSet) -> ObjectMeta:
    return ObjectMeta(name=inference_set.name, namespace=inference_set.namespace, labels=pod_selector(inference_set))


async def ensure_route(request: Request[InferenceSet], settings: WorkspaceSettings) -> ConditionUpdate | None:
    """Applies pool and route; returns the condition about them, None without a Gateway in the settings.

    Raises:
        Exception: a request failed for another reason than the content of the object.
    """
    if not settings.inference_gateway:
        return None
    inference_set = request.object
    applied: list[InferencePool | HTTPRoute] = []
    for wanted in (inference_pool(inference_set, settings), http_route(inference_set, settings)):
        try:
            present = await request.api.find(type(wanted), wanted.name, wanted.namespace)
            if present is not None and not is_controller_of(inference_set, present):
                return _false(conditions.NAME_CONFLICT, name_conflict_message(present, "InferenceSet"))
            applied.append(await request.api.ensure(wanted, owner=inference_set))
        except (UndeclaredKind, CacheNotSynced, NotFound):
            message = (
                f"the API server does not serve {wanted.kind} of {type(wanted).gvk().api_version}: install its CRD"
            )
            return _false(conditions.GATEWAY_KIND_MISSING, message)
        except ApiError as error:
            if not is_rejection(error):
                raise
            message = f"the API server rejects {wanted.kind} {wanted.name}: {format_error(error)}"
            return _false(conditions.WORKLOAD_REFUSED, message)
    name = picker_name(inference_set, settings)
    if await request.api.find(Service, name, inference_set.namespace) is None:
        message = f"the endpoint picker, Service {name}, does not exist: install it (docs/guides/inference-sets.md)"
        return _false(conditions.ENDPOINT_PICKER_MISSING, message)
    return _reported(settings, applied)


def _reported(settings: WorkspaceSettings, objects: Sequence[InferencePool | HTTPRoute]) -> ConditionUpdate:
    """Returns the condition from what the Gateway reports about the objects."""
    kind = conditions.INFERENCE_SET_ROUTED
    for each in objects:
        found = list(_parent_conditions(each))
        for condition in found:
            if condition.get("status") == "False":
                message = f"{each.kind} {each.name}: {condition.get('type')}: {condition.get('message') or 'False'}"
                return _false(conditions.NOT_ACCEPTED, message)
        if not any(each.get("type") == "Accepted" and each.get("status") == "True" for each in found):
            message = f"Gateway {settings.inference_gateway} has not accepted {each.kind} {each.name} yet"
            return _false(conditions.NOT_ACCEPTED, message)
    return ConditionUpdate.true(kind, kind, f"Gateway {settings.inference_gateway} has accepted the route")


def _parent_conditions(obj: InferencePool | HTTPRoute) -> Iterator[Mapping[str, Any]]:
    """Yields the conditions of all parents; both kinds have them in `status.parents`."""
    for parent in cast("Sequence[Mapping[str, Any]]", obj.status.get("parents") or ()):
        yield from cast("Sequence[Mapping[str, Any]]", parent.get("conditions") or ())


def _false(reason: str, message: str) -> ConditionUpdate:
    return ConditionUpdate.false(conditions.INFERENCE_SET_ROUTED, reason, message)
