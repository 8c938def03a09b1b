"""ConfigMaps and Secrets."""

import base64
from typing import Self

from kaito.runtime.meta import Resource


class ConfigMap(Resource, api="v1", kind="ConfigMap"):
    """Configuration as text, or as base64 in `binary_data`."""

    data: dict[str, str] = {}
    binary_data: dict[str, str] = {}
    immutable: bool | None = None


class Secret(Resource, api="v1", kind="Secret", hide_input_in_errors=True):
    """Confidential data; values are base64."""

    type: str | None = None
    data: dict[str, str] = {}
    string_data: dict[str, str] = {}
    immutable: bool | None = None

    def value(self, key: str) -> bytes | None:
        """Returns the decoded value of a key, if present."""
        encoded = self.data.get(key)
        return None if encoded is None else base64.b64decode(encoded)

    def with_values(self, **values: bytes) -> Self:
        """Returns a copy with these keys set; use `with_value` for keys that are not identifiers."""
        return self.evolve(data=self.data | {key: base64.b64encode(value).decode() for key, value in values.items()})

    def with_value(self, key: str, value: bytes) -> Self:
        """Returns a copy with one key set, for example `tls.crt`."""
        return self.evolve(data=self.data | {key: base64.b64encode(value).decode()})

    def __repr__(self) -> str:
        """Returns a text without the values, because objects are logged."""
        return f"Secret({self.key}, keys={sorted(getattr(self, 'data', {}))})"  # metadata-only ones have no data

    __str__ = __repr__
