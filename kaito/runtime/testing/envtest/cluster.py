"""`RealCluster`: a test's namespace in a real API server, with a client and managers restricted to it.

The `real_cluster` fixture creates one per test, on a control plane of the session. Time is real, so tests wait with
`eventually`.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from kaito.runtime.cache import Cached
from kaito.runtime.client import Client, MergePatch, connect
from kaito.runtime.clock import monotonic
from kaito.runtime.controller import Controller, Periodic
from kaito.runtime.crd import Version, crd
from kaito.runtime.errors import AlreadyExists, NotFound
from kaito.runtime.kinds import (
    CustomResourceDefinition,
    MutatingWebhookConfiguration,
    Namespace,
    ValidatingWebhookConfiguration,
)
from kaito.runtime.manager import Lifespan, Manager, Runnable, Settings
from kaito.runtime.meta import ObjectMeta, Resource
from kaito.runtime.testing.envtest.control_plane import free_port
from kaito.runtime.webhook import Conversion, Webhook, admission_manifests

LOOPBACK = "127.0.0.1"
POLL_SECONDS = 0.05
SERVED_SECONDS = 20.0
"""Time limit for a new kind to be served, or a deleted one to disappear; controller-runtime waits 10 s."""


_CONFIGURATIONS: Mapping[str, type[Resource]] = {
    kind.kind: kind for kind in (MutatingWebhookConfiguration, ValidatingWebhookConfiguration)
}


@final
@dataclass(slots=True)
class _State:
    stack: AsyncExitStack
    client: Client


@final
class RealCluster:
    """Namespace of a real API server, for the duration of `async with`.

    Args:
        kubeconfig: Kubeconfig of a cluster administrator.
        namespace: The namespace; by default a new name. It is deleted at the end, like the installed kinds.
    """

    def __init__(self, kubeconfig: Path, *, namespace: str = "") -> None:
        self.kubeconfig = kubeconfig
        self.namespace: str = namespace or f"test-{uuid.uuid4().hex[:8]}"
        self._state: _State | None = None
        self.webhook_port: int = free_port()
        """Port of the managers' webhook servers, for `conversion_manifest(url=)`."""
        self._installed: list[CustomResourceDefinition] = []
        self._configured: list[Resource] = []

    async def __aenter__(self) -> Self:
        stack = AsyncExitStack()
        client = await stack.enter_async_context(connect(self.kubeconfig, field_manager="test"))
        self._state = _State(stack, client)
        try:
            await client.create(Namespace(metadata=ObjectMeta(name=self.namespace)))
        except BaseException:
            await stack.aclose()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._state is None:
            return
        client = self._state.client
        try:
            for configuration in self._configured:
                await client.delete(configuration, if_uid=False)
            await client.delete(Namespace(metadata=ObjectMeta(name=self.namespace)), if_uid=False)
            for definition in self._installed:
                await self._free_objects(definition)
                await client.delete(definition, if_uid=False)
            for definition in self._installed:
                is_gone = partial(self._is_gone, definition.name)
                await self.eventually(is_gone, within=SERVED_SECONDS, what=f"the end of {definition.name}")
        finally:
            await self._state.stack.aclose()
            self._state = None

    @property
    def client(self) -> Client:
        """Client of the test.

        Raises:
            RuntimeError: Used outside of `async with`.
        """
        if self._state is None:
            message = "use the cluster with `async with`"
            raise RuntimeError(message)
        return self._state.client

    def manager(
        self,
        *controllers: Controller[Any] | Periodic,
        cache: Sequence[Cached] = (),
        live: Sequence[type[Resource]] = (),
        lease: str | None = None,
        runnables: Sequence[Runnable] = (),
        lifespan: Lifespan | None = None,
        webhooks: Sequence[Webhook[Any]] = (),
        conversions: Sequence[Conversion[Any]] = (),
        name: str = "test",
        **settings: Any,
    ) -> Manager:
        """Creates a manager of this namespace, without HTTP endpoints; use it with `async with`.

        The arguments are those of `Manager`; others are fields of its `Settings`. Install custom kinds before it
        starts. Webhooks are served on loopback, at the address that `admit` registers.
        """
        given: dict[str, Any] = {
            "kubeconfig": self.kubeconfig,
            "namespaces": (self.namespace,),
            "leader_election_namespace": self.namespace,
            "metrics_bind_address": "0",
            "health_probe_bind_address": "0",
        }
        if webhooks or conversions:
            given |= {
                "webhook_bind_address": LOOPBACK,
                "webhook_hosts": (LOOPBACK,),
                "webhook_port": self.webhook_port,
            }
        return Manager(
            Settings(**(given | settings)),
            controllers=controllers,
            cache=cache,
            live=live,
            lease=lease,
            runnables=runnables,
            lifespan=lifespan,
            webhooks=webhooks,
            conversions=conversions,
            name=name,
        )

    async def start(self, *controllers: Controller[Any] | Periodic) -> None:
        """Runs simulated cluster controllers, such as `workloads()`, until the end of the test."""
        self.client  # noqa: B018 -- raises outside of `async with`
        if self._state is not None:
            await self._state.stack.enter_async_context(self.manager(*controllers, name="cluster"))

    async def admit(self, *webhooks: Webhook[Any]) -> None:
        """Registers webhooks for objects of this namespace (and cluster-scoped ones), until the end of the test.

        A manager with these webhooks serves them and writes the CA bundle. The API server applies it after a moment:
        wait for the first effect with `eventually`.
        """
        url = f"https://{LOOPBACK}:{self.webhook_port}"
        for manifest in admission_manifests(*webhooks, name=f"{self.namespace}-{len(self._configured)}", url=url):
            for entry in manifest["webhooks"]:
                entry["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}}
            kind = _CONFIGURATIONS[manifest["kind"]]
            self._configured.append(await self.client.create(kind.model_validate(manifest)))

    async def install(self, *kinds: type[Resource] | Mapping[str, Any]) -> None:
        """Installs kinds: models (a CRD is generated) or CRD manifests. They are deleted at the end of the test.

        Raises:
            ApiError: The server rejects one, for example because that of another test still exists.
            AssertionError: It is not served within 20 s.
        """
        for kind in kinds:
            manifest = kind if isinstance(kind, Mapping) else crd([Version(model=kind, storage=True)])
            definition = CustomResourceDefinition.model_validate(manifest)
            try:
                self._installed.append(await self.client.create(definition))
            except AlreadyExists:
                present = await self.client.get(CustomResourceDefinition, definition.name)
                version = present.metadata.resource_version
                await self.client.update(definition.with_metadata(resource_version=version))
            for version in manifest["spec"]["versions"]:
                if version.get("served", True):
                    served = partial(self._is_served, _served_kind(manifest, str(version["name"])))
                    what = f"version {version['name']} of {definition.name}"
                    await self.eventually(served, within=SERVED_SECONDS, what=what)

    async def eventually(
        self, holds: Callable[[], Awaitable[object] | object], *, within: float = 10.0, what: str = ""
    ) -> None:
        """Polls until a function returns a true value.

        Args:
            holds: The function; may be async. A failed `assert` or NotFound counts as false.
            within: Time limit in seconds.
            what: Name in the error message.

        Raises:
            AssertionError: The time limit was exceeded; the cause is the last failed `assert`.
        """
        deadline, last = monotonic() + within, None
        while True:
            try:
                answer = holds()
                if await answer if isawaitable(answer) else answer:
                    return
                last = None
            except (AssertionError, NotFound) as error:
                last = error
            if monotonic() >= deadline:
                message = f"{what or 'the condition'} did not hold within {within:g} s"
                raise AssertionError(message) from last
            await asyncio.sleep(POLL_SECONDS)

    async def _is_served(self, kind: type[Resource]) -> bool:
        try:
            await self.client.list(kind)
        except NotFound:
            return False
        return True

    async def _free_objects(self, definition: CustomResourceDefinition) -> None:
        """Removes the finalizers of remaining objects, whose controllers are not running any more."""
        manifest = definition.to_dict()
        stored = next(version["name"] for version in manifest["spec"]["versions"] if version["storage"])
        for left in await self.client.list(_served_kind(manifest, stored)):
            if left.metadata.finalizers:
                with suppress(NotFound):
                    await self.client.patch(left, MergePatch({"metadata": {"finalizers": None}}))

    async def _is_gone(self, name: str) -> bool:
        return await self.client.find(CustomResourceDefinition, name) is None


def _served_kind(manifest: Mapping[str, Any], version: str) -> type[Resource]:
    """Creates a model with the API names of a version and no fields."""
    spec = manifest["spec"]

    class Served(
        Resource,
        api=f"{spec['group']}/{version}",
        kind=spec["names"]["kind"],
        plural=spec["names"]["plural"],
        namespaced=spec["scope"] == "Namespaced",
    ):
        """Any object of the version."""

    return Served
