"""References from one object to another, which several modules of kinds use."""

from kaito.runtime.meta import Model


class ObjectReference(Model):
    """Reference to any object, as in events and bindings."""

    api_version: str | None = None
    kind: str | None = None
    namespace: str | None = None
    name: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    field_path: str | None = None


class LocalObjectReference(Model):
    """The name of an object in the same namespace."""

    name: str = ""
