"""Synchronous access to the objects of an in-memory API server for tests: put, get, list, patch, delete.

`World` derives from it. The server handles every call at once, with validation, admission and authorization as usual;
calls are not counted and not subject to faults.
"""

import asyncio
import functools
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from kaito.apiserver import ApiServer, HttpRequest
from kaito.runtime.client import codec
from kaito.runtime.client.path import label_query, resource_path
from kaito.runtime.client.sender import failure
from kaito.runtime.crd import Version, crd
from kaito.runtime.errors import AlreadyExists, ConfigurationError, NotFound
from kaito.runtime.kinds import Event
from kaito.runtime.meta import Condition, LabelSelector, Resource, condition_of
from kaito.runtime.testing.admission import SERVICE, InProcessWebhooks
from kaito.runtime.testing.manifests import Manifest, api_path, path_of, read_manifests
from kaito.runtime.webhook import Conversion, Webhook, conversion_manifest

R = TypeVar("R", bound=Resource)
T = TypeVar("T")

_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

OWN_AGENT = "world/1"
"""User agent of the test's reads and writes, which are not counted and not subject to faults."""


class ServerObjects:
    """Synchronous access to the objects of a server.

    Args:
        server: The server.
        webhooks: The webhooks to which `admit` adds; the server must call them.
    """

    def __init__(self, server: ApiServer, webhooks: InProcessWebhooks) -> None:
        self.server: ApiServer = server
        self._loop = _running_loop()
        self._webhooks = webhooks

    def put(self, obj: R) -> R:
        """Creates or replaces the object with its status.

        Returns the stored object. The namespace of a namespaced object defaults to `default`. An unknown kind is
        installed first.

        Raises:
            ApiError: The server rejects the object (for example `Invalid`).
            ConfigurationError: The kind has no plural.
        """
        _check_plural(type(obj))
        self.install(type(obj))
        manifest = obj.to_dict()
        if obj.namespaced:
            manifest["metadata"] = {"namespace": "default"} | manifest.get("metadata", {})
        namespace, name = manifest["metadata"].get("namespace", ""), obj.name
        path = _path(type(obj), namespace)
        for field in ("resourceVersion", "uid", "creationTimestamp", "generation", "managedFields"):
            manifest["metadata"].pop(field, None)
        try:
            stored = self._send("POST", path, manifest)
        except AlreadyExists:
            target = _path(type(obj), namespace, name)
            present: dict[str, Any] = msgspec.json.decode(self._send("GET", target))
            manifest["metadata"]["resourceVersion"] = present["metadata"]["resourceVersion"]
            stored = self._send("PUT", target, manifest)
        stored_object: dict[str, Any] = msgspec.json.decode(stored)
        status = manifest.get("status")
        if status is not None and stored_object.get("status") != status:
            name = stored_object["metadata"]["name"]
            with suppress(NotFound):  # a kind without a status subresource: the write above stored it
                stored = self._send(
                    "PUT", _path(type(obj), namespace, name, "status"), stored_object | {"status": status}
                )
        return codec.decode(type(obj), stored)

    def apply(self, manifests: str | Path | Mapping[str, Any], namespace: str = "default") -> list[Manifest]:
        """Applies manifests as `kubectl apply --server-side` does: creates or changes the objects.

        Field validation is strict, and fields of other managers are a conflict, as with kubectl.

        Args:
            manifests: YAML or JSON text (several documents, Lists), one document, or the `Path` of a file or directory.
            namespace: Namespace of objects without one.

        Returns:
            The stored objects, in order.

        Raises:
            ConfigurationError: A document is not an object, or its kind is unknown: apply CRDs first.
            ApiError: The server rejects an object; the objects before it are applied.
        """
        return [self._apply(manifest, namespace) for manifest in read_manifests(manifests)]

    def _apply(self, manifest: Manifest, namespace: str) -> Manifest:
        try:
            discovered: dict[str, Any] = msgspec.json.decode(self._send("GET", api_path(manifest["apiVersion"])))
        except NotFound:
            discovered = {}
        path = path_of(manifest, discovered, namespace)
        query = (("fieldManager", "kubectl"), ("fieldValidation", "Strict"))
        stored = self._send("PATCH", path, manifest, query=query, content_type="application/apply-patch+yaml")
        return msgspec.json.decode(stored, type=dict[str, Any])

    def condition(self, kind: type[Resource], name: str, condition_type: str, namespace: str = "default") -> Condition:
        """Returns a condition of an object; a missing one is `Unknown` without a reason (Kubernetes API conventions).

            assert world.condition(Memcached, "cache", "Ready").reason == "AllReady"

        Raises:
            NotFound: The object does not exist.
        """
        return condition_of(self.get(kind, name, namespace), condition_type)

    def get(self, kind: type[R], name: str, namespace: str = "default") -> R:
        """Gets an object from the server.

        Raises:
            NotFound: It does not exist.
        """
        return codec.decode(kind, self._send("GET", _path(kind, namespace, name)))

    def find(self, kind: type[R], name: str, namespace: str = "default") -> R | None:
        """Gets an object from the server, or None if it does not exist."""
        try:
            return self.get(kind, name, namespace)
        except NotFound:
            return None

    def events(self, regarding: Resource | None = None) -> list[Event]:
        """Returns the recorded Events, oldest first, optionally of one object."""
        events = self.list(Event)
        if regarding is not None:
            events = [event for event in events if _regards(event, regarding)]
        return sorted(events, key=lambda event: int(event.metadata.resource_version))

    def list(
        self, kind: type[R], namespace: str = "", *, labels: LabelSelector | Mapping[str, str] | str | None = None
    ) -> list[R]:
        """Lists objects, ordered by namespace and name; an empty namespace means all."""
        query = (("labelSelector", label_query(labels)),) if labels else ()
        page = codec.page(self._send("GET", _path(kind, namespace, given=True), query=query), kind.kind)
        objects = [codec.decode(kind, bytes(raw)) for raw in page.items or []]
        return sorted(objects, key=lambda obj: obj.key)

    def delete(self, kind: type[Resource], name: str, namespace: str = "default") -> None:
        """Deletes the object; finalizers keep it as in a cluster.

        Raises:
            NotFound: It does not exist.
        """
        self._send("DELETE", _path(kind, namespace, name))

    def patch(
        self, kind: type[R], name: str, change: Mapping[str, Any], namespace: str = "default", *, subresource: str = ""
    ) -> R:
        """Applies a JSON merge patch, as another client would. Returns the stored object."""
        path = _path(kind, namespace, name, subresource)
        return codec.decode(kind, self._send("PATCH", path, change, content_type="application/merge-patch+json"))

    def scale(self, kind: type[Resource], name: str, replicas: int, namespace: str = "default") -> None:
        """Sets the number of replicas through the scale subresource, as `kubectl scale` and autoscalers do."""
        change = {"spec": {"replicas": replicas}}
        path = _path(kind, namespace, name, "scale")
        self._send("PATCH", path, change, content_type="application/merge-patch+json")

    def install(self, *kinds: type[Resource] | Mapping[str, Any]) -> None:
        """Installs kinds: models (a CRD is generated unless the kind is served), or CRD manifests."""
        for kind in kinds:
            if isinstance(kind, Mapping):
                self._install(kind)
            elif not self._is_served(kind):
                self._install(_definition(kind))

    def admit(self, *webhooks: Webhook[Any]) -> None:
        """Registers webhooks, which the server calls for every write, including the test's.

        No sockets are involved. Async functions that wait are supported only for writes through a client, not for `put`
        and `patch`.
        """
        for webhook in webhooks:
            self.install(webhook.kind)
            for manifest in self._webhooks.add(webhook):
                self._send("POST", f"/apis/{manifest['apiVersion']}/{manifest['kind'].lower()}s", manifest)

    def convert(self, *conversions: Conversion[Any]) -> None:
        """Registers conversions, which the server calls to convert between versions.

        No sockets are involved. An unknown kind is installed with all versions of the conversion; the hub is the
        storage version. A known kind keeps its schemas, and these functions replace the webhook in its manifest.

        Raises:
            ConfigurationError: The conversion lacks a served version of the kind.
        """
        for conversion in conversions:
            path = f"{_DEFINITIONS}/{conversion.hub.plural}.{conversion.hub.group()}"
            try:
                present: dict[str, Any] = msgspec.json.decode(self._send("GET", path))
            except NotFound:
                versions = [Version(model=kind, storage=kind is conversion.hub) for kind in conversion.kinds]
                present = crd(versions)
            conversion.check_coverage(present)
            self._webhooks.convert(conversion)
            if present["spec"].get("conversion", {}).get("strategy") != "Webhook":
                present["spec"]["conversion"] = conversion_manifest(namespace="default", service=SERVICE)
            self._install(present)

    def _install(self, manifest: Mapping[str, Any]) -> None:
        metadata = {name: value for name, value in manifest["metadata"].items() if name != "resourceVersion"}
        try:
            self._send("POST", _DEFINITIONS, dict(manifest) | {"metadata": metadata})
        except AlreadyExists:
            target = f"{_DEFINITIONS}/{manifest['metadata']['name']}"
            present: dict[str, Any] = msgspec.json.decode(self._send("GET", target))
            version = {"resourceVersion": present["metadata"]["resourceVersion"]}
            self._send("PUT", target, dict(manifest) | {"metadata": manifest["metadata"] | version})

    def _is_served(self, kind: type[Resource]) -> bool:
        try:
            self._send("GET", _path(kind, "", given=True), query=(("limit", "1"),))
        except NotFound:
            return False
        return True

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: tuple[tuple[str, str], ...] = (),
        content_type: str = "application/json",
    ) -> bytes:
        headers = {"user-agent": OWN_AGENT, "content-type": content_type}
        data = b"" if body is None else msgspec.json.encode(body)
        reply = self._at_once(self.server.handle(HttpRequest(method, path, query, headers, data)))
        content = cast("bytes", reply.body)
        if reply.status >= 400:
            raise failure(reply.status, reply.headers, content, f"{method} {path}")
        return content

    def _at_once(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine that does not wait: a read or write of the server without faults."""
        if self._loop is not None and _running_loop() is None:  # in a synchronous fixture, between steps of the test
            return self._loop.run_until_complete(work)
        try:
            work.send(None)
        except StopIteration as end:
            return cast("T", end.value)
        work.close()
        message = "the request waits, for an admission webhook or a fault: send it through a client instead"
        raise RuntimeError(message)


def _regards(event: Event, obj: Resource) -> bool:
    regarding: Mapping[str, Any] = event.to_dict().get("regarding") or {}
    if obj.uid and regarding.get("uid"):
        return bool(regarding["uid"] == obj.uid)
    return (regarding.get("kind"), regarding.get("name")) == (obj.kind, obj.name)


def _check_plural(kind: type[Resource]) -> None:
    if not kind.plural:
        raise ConfigurationError(
            f"{kind.kind} has no plural: write untyped_kind({kind.api_version!r}, ..., plural=...)"
        )


def _path(kind: type[Resource], namespace: str, name: str = "", subresource: str = "", *, given: bool = False) -> str:
    _check_plural(kind)
    if not kind.namespaced:
        namespace = ""
    elif not given:
        namespace = namespace or "default"
    return resource_path(kind.api_version, kind.plural, namespace=namespace, name=name, subresource=subresource)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@functools.lru_cache(maxsize=64)
def _definition(kind: type[Resource]) -> dict[str, Any]:
    """Returns the CRD of a kind; cached, because generating a schema takes longer than most tests."""
    return crd([Version(model=kind, storage=True)])
