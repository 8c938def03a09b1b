"""The base class of kinds: metadata, identity, and the names of the kind in the API.

A kind is declared by class keywords, from which client paths, informers, owner references and CRDs are derived:

    class Memcached(Resource, api="cache.example.com/v1", kind="Memcached", plural="memcacheds"):
        spec: MemcachedSpec
        status: MemcachedStatus | None = None
"""

from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack

from pydantic import ConfigDict, Field

from kaito.runtime.meta.key import GroupVersionKind, ObjectKey
from kaito.runtime.meta.model import Model, Time


class OwnerReference(Model):
    """Reference from a dependent to its owner in the same namespace, or to a cluster-scoped owner."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None

    @property
    def group(self) -> str:
        """The owner's API group; the version is not part of an owner's identity."""
        return self.api_version.rpartition("/")[0]


class ObjectMeta(Model):
    """Standard object metadata (the fields that operators use; others are preserved as unknown fields)."""

    name: str = ""
    generate_name: str | None = None
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = Field(default_factory=dict[str, str])
    annotations: dict[str, str] = Field(default_factory=dict[str, str])
    finalizers: list[str] = Field(default_factory=list[str])
    owner_references: list[OwnerReference] = Field(default_factory=list[OwnerReference])


class Resource(Model):
    """Base class of kinds. Subclass with `api=`, `kind=`, `plural=` and `namespaced=`."""

    api_version: ClassVar[str] = ""
    kind: ClassVar[str] = ""
    plural: ClassVar[str] = ""
    namespaced: ClassVar[bool] = True

    _gvk: ClassVar[GroupVersionKind] = GroupVersionKind("", "", "")

    metadata: ObjectMeta = Field(default_factory=ObjectMeta)

    def __init_subclass__(
        cls,
        *,
        api: str = "",
        kind: str = "",
        plural: str = "",
        namespaced: bool | None = None,
        **config: Unpack[ConfigDict],
    ) -> None:
        """Reads the kind's identity from the class keywords; omitted ones are inherited."""
        super().__init_subclass__(**config)
        if api:
            cls.api_version = api
        if kind:
            cls.kind = kind
            cls.plural = plural or f"{kind.lower()}s"
        elif plural:
            cls.plural = plural
        if namespaced is not None:
            cls.namespaced = namespaced
        cls._gvk = GroupVersionKind.of(cls.api_version, cls.kind)

    if not TYPE_CHECKING:  # otherwise type checkers would accept misspelled attributes

        def __getattr__(self, name: str) -> Any:
            """Explains why a field is missing when only metadata is cached."""
            if name in type(self).model_fields and "metadata" in vars(self):
                message = (
                    f"{self.kind} {self.key}: only the metadata is cached, not {name}. Read it with "
                    f'consistency="live", or cache the kind without only="metadata"'
                )
                raise AttributeError(message)
            return super().__getattr__(name)

    @classmethod
    def gvk(cls) -> GroupVersionKind:
        """Returns group, version and kind of the class."""
        return cls._gvk

    @classmethod
    def group(cls) -> str:
        """Returns the API group; empty for core kinds."""
        return cls.api_version.rpartition("/")[0]

    @property
    def key(self) -> ObjectKey:
        """Namespace and name."""
        return ObjectKey(self.metadata.namespace, self.metadata.name)

    @property
    def name(self) -> str:
        """`metadata.name`."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """`metadata.namespace`; empty for cluster-scoped kinds."""
        return self.metadata.namespace

    @property
    def uid(self) -> str:
        """`metadata.uid`; empty before the object is created."""
        return self.metadata.uid

    @property
    def labels(self) -> dict[str, str]:
        """`metadata.labels`."""
        return self.metadata.labels

    @property
    def annotations(self) -> dict[str, str]:
        """`metadata.annotations`."""
        return self.metadata.annotations

    @property
    def deleting(self) -> bool:
        """Whether the object is terminating: its deletion was requested, and finalizers or a grace period keep it."""
        return self.metadata.deletion_timestamp is not None

    def to_dict(self) -> dict[str, Any]:
        """Returns the manifest: `apiVersion`, `kind` and every field that was set."""
        return {"apiVersion": self.api_version, "kind": self.kind} | {
            name: value for name, value in super().to_dict().items() if name not in {"apiVersion", "kind"}
        }

    def with_metadata(self, **changes: Any) -> Self:
        """Returns a copy with some metadata fields replaced (Python names)."""
        return self.evolve(metadata=self.metadata.evolve(**changes))

    def owner_reference(self, *, controller: bool = True, block_deletion: bool = True) -> OwnerReference:
        """Returns the owner reference to this object.

        Raises:
            ValueError: The object has no UID because it is not created yet.
        """
        if not self.uid:
            message = f"{self.kind} {self.key} has no uid yet: create it before making it an owner"
            raise ValueError(message)
        return OwnerReference(
            api_version=self.api_version,
            kind=self.kind,
            name=self.name,
            uid=self.uid,
            controller=controller,
            block_owner_deletion=block_deletion,
        )
