"""Identifiers of objects (`ObjectKey`) and kinds (`GroupVersionKind`).

Keys are immutable values without a reference to the object, for queues, caches and logs. They are named tuples because
every event and every read hashes several of them, which is fastest for tuples.
"""

from typing import NamedTuple, Self


class ObjectKey(NamedTuple):
    """Namespace and name of one object; the namespace is empty for cluster-scoped kinds."""

    namespace: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `namespace/name`, or `name` for a cluster-scoped object."""
        namespace, _, name = text.rpartition("/")
        return cls(namespace, name)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class GroupVersionKind(NamedTuple):
    """An API group (empty for the core group), its version and a kind."""

    group: str
    version: str
    kind: str

    @classmethod
    def of(cls, api_version: str, kind: str) -> Self:
        """Splits an `apiVersion` such as `apps/v1` or `v1`."""
        group, _, version = api_version.rpartition("/")
        return cls(group, version, kind)

    @property
    def api_version(self) -> str:
        """The `apiVersion` string of an object of this kind."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def __str__(self) -> str:
        return f"{self.kind}.{self.version}.{self.group}" if self.group else f"{self.kind}.{self.version}"
