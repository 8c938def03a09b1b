"""Digests of a rendered pod template and of a mounted ConfigMap. A different digest replaces the pods."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from kaito.runtime.kinds import ConfigMap


def digest(value: Any) -> str:
    """Returns the first 16 hex digits of the SHA-256 of a value's canonical JSON."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def config_digest(config: ConfigMap) -> str:
    """Returns the digest of a ConfigMap's data, without its metadata."""
    content: Mapping[str, Mapping[str, str]] = {"data": config.data, "binaryData": config.binary_data}
    return digest(content)
