"""`KubeconfigSecrets`: a cluster for each Secret that contains a kubeconfig.

The Secrets are in one namespace of the manager's own cluster and have a label. Every replica watches them. A user who
may write Secrets there decides to which servers the process connects, and nothing more: `parse_kubeconfig` refuses what
would run a program or read a file. Errors are reported as events on the Secret and to the function `report`, by the
leader.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias, final

from kaito.runtime.cache import Cache, Cached
from kaito.runtime.cache.entry import decode
from kaito.runtime.cache.event import Event, EventType as EventKind
from kaito.runtime.cache.informer import Informer
from kaito.runtime.client import Api, user_agent
from kaito.runtime.client.status import ConditionUpdate
from kaito.runtime.clusters.cluster_set import ClusterProvider, ClusterSet
from kaito.runtime.clusters.kubeconfig import KubeconfigRefused, parse_kubeconfig
from kaito.runtime.clusters.member import Member, MemberEvent
from kaito.runtime.errors import ConfigurationError
from kaito.runtime.kinds import Secret
from kaito.runtime.logging import get_logger
from kaito.runtime.manager.dynamic_clusters import HomeServices
from kaito.runtime.meta import LabelSelector, ObjectKey
from kaito.runtime.recorder import EventType
from kaito.runtime.tasks import TaskScope, sleep_forever

LABEL: Final = "sigs.k8s.io/multicluster-runtime-kubeconfig"
"""Label of the Secrets of multicluster-runtime's kubeconfig provider; its value is `true`."""

REPORT_SECONDS: Final = 30.0
"""Time limit of a report."""

REPORT_RETRY_SECONDS: Final = 10.0
"""Delay before a report that failed is repeated."""

CONDITION: Final = "Connected"
"""Type of the reported condition."""

_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"

Report: TypeAlias = Callable[[Secret, ConditionUpdate, Api], Awaitable[None]]
"""Called with the Secret, without its data, the condition, and the `Api` of the manager's own cluster."""

_log = get_logger(__name__)


@dataclass(slots=True)
class _Entry:
    """What is known about a Secret."""

    name: str
    """Of its cluster."""
    secret: Secret
    """Without its data."""
    problem: str = ""
    """Why its kubeconfig was refused."""
    announced: ConditionUpdate | None = None
    """The state of the last event."""
    reported: ConditionUpdate | None = None
    """The state that `report` has stored."""


@final
class KubeconfigSecrets(ClusterProvider):
    """Clusters from Secrets.

    A changed kubeconfig replaces the connection: for the same server the watches resume, another server is another
    cluster. A kubeconfig that is refused changes nothing: the last connection stays until the Secret is deleted, or
    loses its label. To revoke access, delete the Secret.

    Args:
        namespace: of the Secrets. Nothing else should be able to write Secrets there.
        labels: selects the Secrets; those of multicluster-runtime's kubeconfig provider by default.
        key: key of the kubeconfig in the Secret's data.
        context: context of each kubeconfig; its current one by default.
        name: returns the name of a Secret's cluster; the name of the Secret by default.
        insecure: accept servers without TLS, and TLS without verification.
        report: called when a cluster becomes ready or unreachable, or its kubeconfig is refused; for conditions.
    """

    def __init__(
        self,
        namespace: str,
        *,
        labels: LabelSelector | Mapping[str, str] | str | None = None,
        key: str = "kubeconfig",
        context: str = "",
        name: Callable[[Secret], str] = lambda secret: secret.name,
        insecure: bool = False,
        report: Report | None = None,
    ) -> None:
        if not namespace:
            message = "KubeconfigSecrets needs a namespace: every Secret in it with the label adds a cluster"
            raise ConfigurationError(message)
        self._namespace = namespace
        self._labels = {LABEL: "true"} if labels is None else labels
        self._key = key
        self._context = context
        self._name = name
        self._insecure = insecure
        self._report = report
        self._entries: dict[ObjectKey, _Entry] = {}
        self._owners: dict[str, ObjectKey] = {}
        """The Secret of each cluster."""
        self._unreported: dict[ObjectKey, None] = {}
        self._has_unreported = asyncio.Event()
        self._synced = asyncio.Event()
        self._informer: Informer[Secret] | None = None
        self._cache: Cache | None = None

    @classmethod
    def cluster_api(cls, namespace: str, *, report: Report | None = None) -> "KubeconfigSecrets":
        """Returns a provider for the Secrets `<cluster>-kubeconfig` of Cluster API in one namespace."""
        label = "cluster.x-k8s.io/cluster-name"
        return cls(
            namespace,
            labels=label,
            key="value",
            name=lambda secret: secret.labels.get(label, "") if secret.name.endswith("-kubeconfig") else "",
            report=report,
        )

    # -- ClusterProvider ---------------------------------------------------------------------------------------------

    async def run(self, clusters: ClusterSet, home: HomeServices) -> None:
        """Watches the Secrets until cancelled."""
        if self._cache is not None:
            message = "KubeconfigSecrets belongs to a cluster set already: make another one"
            raise ConfigurationError(message)
        services, shared = home.cluster.services, home.shared
        # A cache of its own: controllers may need Secrets in another form, and one informer has one form of a kind.
        cache = self._cache = Cache(
            services.connection.transport,
            [Cached(Secret, labels=self._labels)],
            namespaces=[self._namespace],
            clock=shared.clock,
            rng=shared.rng,
            user_agent=user_agent(shared.field_manager),
            observer=services.requests,
        )
        self._informer = cache.informer(Secret)
        subscription = self._informer.subscribe(partial(self._on_event, clusters=clusters), name=clusters.name)
        clusters.subscribe(self._on_change)
        try:
            async with TaskScope(f"kubeconfigs.{clusters.name}") as scope:
                scope.spawn(cache.run(), name="cache")
                scope.spawn(self._run_reports(clusters, home), name="reports")
                await subscription.wait_synced()
                self._synced.set()
                await sleep_forever()
        finally:
            clusters.unsubscribe(self._on_change)

    async def wait_synced(self) -> None:
        """Waits until the clusters of the existing Secrets were added."""
        await self._synced.wait()

    @property
    def sync_error(self) -> str:
        """The error of the list of Secrets."""
        return str(self._informer.not_synced()) if self._informer is not None and not self._informer.synced else ""

    def busy(self) -> Sequence[str]:
        """Work in progress."""
        busy = self._cache is not None and not self._cache.idle
        return ["kubeconfigs: a Secret is being read"] if busy else []

    # -- Secrets -----------------------------------------------------------------------------------------------------

    def _on_event(self, event: Event[Secret], clusters: ClusterSet) -> None:
        latest = event.latest
        if event.type is EventKind.DELETE or latest is None or latest.header.deleting:  # a finalizer may keep it
            self._delete(event.key, clusters)
        else:
            self._apply(latest.object, clusters)

    def _apply(self, secret: Secret, clusters: ClusterSet) -> None:
        key, name = secret.key, self._name(secret)
        known = self._entries.get(key)
        if known is not None and known.name != name:
            self._delete(key, clusters)
        if not name:
            return
        entry = self._entries.setdefault(key, _Entry(name, secret))
        entry.secret = _without_data(secret)
        try:
            self._check_owner(name, key, clusters)
            config = parse_kubeconfig(self._text(secret), context=self._context, insecure=self._insecure)
            clusters.add(name, config, labels=secret.labels)
            self._owners[name] = key
            entry.problem = ""
        except ConfigurationError as error:
            entry.problem = str(error)
            _log.warning("kubeconfig refused", secret=str(key), cluster=name, error=str(error))
        self._queue_report(key)

    def _check_owner(self, name: str, key: ObjectKey, clusters: ClusterSet) -> None:
        """Raises ConfigurationError if the name is that of another cluster: a Secret must not take it over."""
        owner = self._owners.get(name)
        if owner is not None and owner != key:
            message = f"kubeconfig refused: the name of cluster {name} is taken by Secret {owner}"
            raise KubeconfigRefused(message)
        if owner is None and clusters.find(name) is not None:
            message = f"kubeconfig refused: the name of cluster {name} is taken by one that the program added"
            raise KubeconfigRefused(message)

    def _text(self, secret: Secret) -> bytes:
        try:
            text = secret.value(self._key)
        except ValueError:
            text = None
        if text is None:
            message = f"kubeconfig refused: the Secret has no key {self._key}"
            raise KubeconfigRefused(message)
        return text

    def _delete(self, key: ObjectKey, clusters: ClusterSet) -> None:
        entry = self._entries.pop(key, None)
        if entry is None or self._owners.get(entry.name) != key:
            return
        del self._owners[entry.name]
        clusters.discard(entry.name)
        for other, waiting in list(self._entries.items()):
            stored = self._informer.get(other) if waiting.name == entry.name and self._informer is not None else None
            if stored is not None:  # it was refused because of its name
                self._apply(decode(stored, Secret), clusters)

    # -- reports -----------------------------------------------------------------------------------------------------

    def _on_change(self, member: Member, event: MemberEvent) -> None:
        key = self._owners.get(member.name)
        if key is not None and event in {"ready", "unreachable"}:
            self._queue_report(key)

    def _queue_report(self, key: ObjectKey) -> None:
        self._unreported[key] = None
        self._has_unreported.set()

    async def _run_reports(self, clusters: ClusterSet, home: HomeServices) -> None:
        """Reports changes on the leader, which also reports those from before its election."""
        await home.wait_elected()
        while True:
            await self._has_unreported.wait()
            self._has_unreported.clear()
            failed: list[ObjectKey] = []
            while self._unreported:
                key = next(iter(self._unreported))
                del self._unreported[key]
                try:
                    await self._report_one(key, clusters, home)
                except Exception as error:  # noqa: BLE001 -- the function of the user
                    _log.error("cluster not reported, retrying", secret=str(key), error=str(error), exc_info=error)
                    failed.append(key)
            if failed:
                await asyncio.sleep(REPORT_RETRY_SECONDS)
                for key in failed:
                    self._queue_report(key)

    async def _report_one(self, key: ObjectKey, clusters: ClusterSet, home: HomeServices) -> None:
        entry = self._entries.get(key)
        state = self._state(key, entry, clusters) if entry is not None else None
        if entry is None or state is None or state == entry.reported:
            return
        if entry.announced != state:
            severity: EventType = "Normal" if state.is_true else "Warning"
            home.cluster.services.recorder.record(entry.secret, severity, state.reason, state.message, action="Connect")
            entry.announced = state
        if self._report is not None:
            async with asyncio.timeout(REPORT_SECONDS):
                await self._report(entry.secret, state, home.cluster.api)
        entry.reported = state

    def _state(self, key: ObjectKey, entry: _Entry, clusters: ClusterSet) -> ConditionUpdate | None:
        """The state as a condition; None while the first answer of the server is waited for."""
        member = clusters.find(entry.name) if self._owners.get(entry.name) == key else None
        if entry.problem:
            kept = "; the last valid kubeconfig stays in use" if member is not None else ""
            return ConditionUpdate.false(CONDITION, "KubeconfigRefused", entry.problem + kept)
        if member is None or not member.is_settled:
            return None
        if member.problem:
            return ConditionUpdate.false(CONDITION, "ClusterUnreachable", f"cluster {entry.name}: {member.problem}")
        return ConditionUpdate.true(CONDITION, "ClusterReady", f"cluster {entry.name} is connected")


def _without_data(secret: Secret) -> Secret:
    """The Secret without its values; kubectl's annotation has them, too."""
    annotations = {name: text for name, text in secret.annotations.items() if name != _LAST_APPLIED}
    metadata = secret.metadata.evolve(annotations=annotations, managed_fields=None)
    return secret.evolve(metadata=metadata, data={}, string_data={})
