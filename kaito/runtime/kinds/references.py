"""References from one object to another. Apart from the kinds that use them, which are large."""

from kaito.runtime.meta import Model


class ObjectReference(Model):
    """A reference to any object, as events and bindings carry it."""

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
