"""Serves the subresources that are not views of the object: scale, eviction, binding, finalize, token, log, and
the upgrades of connections to pods."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Final, TypeAlias

from kaito.apiserver import errors
from kaito.apiserver.bodies import decode as bodies
from kaito.apiserver.deletion.delete import delete, delete_options
from kaito.apiserver.patch.json_patch import json_patch, merge_patch
from kaito.apiserver.printers.cells import format_selector
from kaito.apiserver.reads import read as reads
from kaito.apiserver.registry.resources import Resource, Scale, view
from kaito.apiserver.registry.routes import Target
from kaito.apiserver.registry.selectors import selector_matches
from kaito.apiserver.registry.server_state import Context, ServerState, timestamp
from kaito.apiserver.registry.store import Stored
from kaito.apiserver.wire import (
    HttpRequest,
    HttpResponse,
    Json,
    Object,
    copy_json,
    encode,
    json_response,
    lookup,
    text_response,
)
from kaito.apiserver.writes.writer import Managed, Writer

UPGRADED: Final = frozenset({"exec", "portforward"})
"""Subresources whose connections are upgraded."""

LogSource: TypeAlias = Callable[[str, str, HttpRequest], Awaitable[HttpResponse | None]]
"""Returns the logs of a pod. Arguments: namespace, name, and the request, whose query selects container and lines."""

_BUILTIN_SCALE = Scale(".spec.replicas", ".status.replicas")


def _dig(data: Object, path: str) -> Json:
    return lookup(data, path.strip(".").split("."))


def _bury(data: Object, path: str, value: Json) -> None:
    *parents, last = path.strip(".").split(".")
    node = data
    for name in parents:
        node = node.setdefault(name, {})
    node[last] = value


def scale_of(resource: Resource, data: Object, *, may_be_unset: bool = False) -> Object:
    """Returns the `autoscaling/v1` Scale of an object.

    Args:
        resource: The kind of the object.
        data: The object.
        may_be_unset: Whether a custom object may lack its number of replicas, as before an update of the scale.

    Raises:
        StatusError: a custom object lacks the field with its number of replicas.
    """
    paths = resource.scale or _BUILTIN_SCALE
    metadata: Object = data["metadata"]
    names = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    selector = _dig(data, paths.selector) if paths.selector else None
    if resource.scale is None:
        raw: Json = lookup(data, ("spec", "selector"))
        selector = format_selector(raw if "matchLabels" in (raw or {}) or resource.group else {"matchLabels": raw})
    status: Object = {"replicas": _dig(data, paths.status_replicas) or 0}
    if selector:
        status["selector"] = selector
    replicas = _dig(data, paths.replicas)
    if replicas is None and resource.custom and not may_be_unset:
        raise errors.internal(f'the spec replicas field "{paths.replicas}" does not exist')
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: metadata[name] for name in names if name in metadata},
        "spec": {"replicas": replicas} if replicas is not None else {},
        "status": status,
    }


class Subresources:
    """Serves the special subresources of one server."""

    def __init__(self, state: ServerState, writer: Writer) -> None:
        self._state = state
        self._writer = writer
        self.logs: LogSource | None = None
        self.upgrades: Mapping[str, str] = {}

    async def serve(self, request: HttpRequest, target: Target, context: Context) -> HttpResponse | None:
        """Answers a request for a special subresource; None for others."""
        match (target.subresource, target.verb):
            case ("scale", "get"):
                return json_response(scale_of(target.resource, view(reads.find(self._state, target), target.resource)))
            case ("scale", "update" | "patch"):
                return await self._set_scale(request, target, context)
            case ("eviction", "create"):
                return self._evict(request, target, context)
            case ("binding", "create"):
                return await self._bind(request, target, context)
            case ("finalize", "update"):
                return await self._finalize(request, target, context)
            case ("token", "create"):
                return self._token(request, target)
            case ("log", "get"):
                return await self._log(request, target)
            case ("exec" | "portforward", "get"):
                return self._upgrade(request, target)
            case _:
                return None

    async def _set_scale(self, request: HttpRequest, target: Target, context: Context) -> HttpResponse:
        body = bodies.decode_body(request)
        kind = bodies.media_type(request)
        paths = target.resource.scale or _BUILTIN_SCALE

        def change(current: Object) -> tuple[Object, Managed]:
            now = scale_of(target.resource, current, may_be_unset=True)
            if target.verb == "update":
                wanted: Object = body
            elif kind == "application/json-patch+json":
                wanted = json_patch(now, body)
            else:
                wanted = merge_patch(now, body)
            replicas = lookup(wanted, ("spec", "replicas")) or 0
            if target.resource.custom and isinstance(replicas, int) and replicas < 0:
                bad = errors.invalid_value(paths.replicas, replicas, "should be a non-negative integer")
                raise errors.invalid(target.resource.group, target.resource.kind, target.name, [bad])
            if not isinstance(replicas, int) or replicas < 0:
                bad = errors.invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
                raise errors.invalid("autoscaling", "Scale", target.name, [bad])
            data = copy_json(current)
            data["metadata"]["resourceVersion"] = lookup(wanted, ("metadata", "resourceVersion"))
            _bury(data, paths.replicas, replicas)
            return data, None

        parent = Target("patch", target.resource, target.namespace, target.name)
        stored = await self._writer.change(parent, change, context, patching=True, recorded_as="scale")
        return json_response(scale_of(target.resource, view(stored, target.resource)))

    def _evict(self, request: HttpRequest, target: Target, context: Context) -> HttpResponse:
        body: Object = bodies.decode_body(request)
        stored = reads.find(self._state, target)
        self._check_budgets(stored)
        inner: Object = body.get("deleteOptions") or {}
        options = delete_options(HttpRequest("DELETE", request.path, request.query, {}, encode(inner)))
        options.dry_run = options.dry_run or context.dry_run
        delete(self._state, target.resource, stored, options)
        return json_response(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201
        )

    def _check_budgets(self, pod: Stored) -> None:
        """Raises 429 for an eviction that a PodDisruptionBudget does not allow."""
        watch_cache = self._state.store.watch_cache("poddisruptionbudgets.policy")
        for key, budget in watch_cache.objects.items():
            selector = lookup(budget.data, ("spec", "selector"))
            if key[0] != pod.key[0] or selector is None or not selector_matches(selector, pod.metadata.get("labels")):
                continue
            if int(lookup(budget.data, ("status", "disruptionsAllowed")) or 0) <= 0:
                wanted = lookup(budget.data, ("status", "desiredHealthy")) or 0
                healthy = lookup(budget.data, ("status", "currentHealthy")) or 0
                why = f"The disruption budget {key[1]} needs {wanted} healthy pods and has {healthy} currently"
                details: Object = {"causes": [{"reason": "DisruptionBudget", "message": why}]}
                text = "Cannot evict pod as it would violate the pod's disruption budget."
                raise errors.StatusError(429, "TooManyRequests", text, details=details)

    async def _bind(self, request: HttpRequest, target: Target, context: Context) -> HttpResponse:
        body: Object = bodies.decode_body(request)
        node = str(lookup(body, ("target", "name")) or "")
        if not node:
            missing = errors.required("target.name")
            raise errors.invalid("", "Binding", target.name, [missing])
        now = self._state.timestamp()

        def change(current: Object) -> tuple[Object, Managed]:
            bound = lookup(current, ("spec", "nodeName"))
            if bound:
                why = f"pod {target.name} is already assigned to node {errors.quote(str(bound))}"
                raise errors.conflict("", "pods/binding", target.name, why)
            data = copy_json(current)
            data["spec"]["nodeName"] = node
            status = data.setdefault("status", {})
            conditions = [item for item in status.get("conditions") or () if item.get("type") != "PodScheduled"]
            conditions.append(
                {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
            )
            status["conditions"] = conditions
            return data, None

        await self._writer.change(
            Target("patch", target.resource, target.namespace, target.name, "binding"), change, context, patching=True
        )
        return json_response(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201
        )

    async def _finalize(self, request: HttpRequest, target: Target, context: Context) -> HttpResponse:
        body: Object = bodies.decode_body(request)
        wanted: list[str] = lookup(body, ("spec", "finalizers")) or []

        def change(current: Object) -> tuple[Object, Managed]:
            data = copy_json(current)
            data["spec"]["finalizers"] = wanted
            if not wanted:
                del data["spec"]["finalizers"]
            return data, None

        stored = await self._writer.change(target, change, context, patching=True)
        return json_response(stored.data)

    def _token(self, request: HttpRequest, target: Target) -> HttpResponse:
        account = reads.find(self._state, target)
        body: Object = bodies.decode_body(request)
        seconds = int(lookup(body, ("spec", "expirationSeconds")) or 3600)
        namespace, name = account.key
        body["status"] = {
            "token": f"system:serviceaccount:{namespace}:{name}",
            "expirationTimestamp": timestamp(self._state.now() + timedelta(seconds=seconds)),
        }
        return json_response(body, 201)

    def _upgrade(self, request: HttpRequest, target: Target) -> HttpResponse:
        pod = reads.find(self._state, target)
        containers = [str(each["name"]) for each in pod.data["spec"]["containers"]]
        container = request.param("container")
        if target.subresource == "exec":
            if container and container not in containers:
                raise errors.bad_request(f"container {container} is not valid for pod {target.name}")
            if not container and len(containers) > 1:
                choices = " ".join(containers)
                why = f"a container name must be specified for pod {target.name}, choose one of: [{choices}]"
                raise errors.bad_request(why)
        if "sec-websocket-key" in request.headers or not (protocol := self.upgrades.get(target.subresource)):
            raise errors.bad_request(f"no kubelet serves {target.subresource} of pod {target.name}")
        offered = [each.strip() for each in request.headers.get("sec-websocket-protocol", "").split(",")]
        return HttpResponse(101, {"sec-websocket-protocol": protocol if protocol in offered else ""}, b"")

    async def _log(self, request: HttpRequest, target: Target) -> HttpResponse:
        pod = reads.find(self._state, target)
        if self.logs is not None:
            found = await self.logs(target.namespace, target.name, request)
            if found is not None:
                return found
        container = request.param("container") or str(lookup(pod.data["spec"]["containers"][0], ("name",)))
        node = lookup(pod.data, ("spec", "nodeName"))
        if not node:
            return text_response("")
        text = f'container "{container}" in pod "{target.name}" is waiting to start: no kubelet serves its logs'
        raise errors.bad_request(text)
