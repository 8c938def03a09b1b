"""Digests that decide whether a workload must roll: of what was rendered, and of the ConfigMap its pods mount."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from kaito.runtime.kinds import ConfigMap


def digest(value: Any) -> str:
    """The first 16 hex digits of the SHA-256 of the value's canonical JSON."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def config_digest(config: ConfigMap) -> str:
    """Digest of a ConfigMap's content; metadata does not count."""
    content: Mapping[str, Mapping[str, str]] = {"data": config.data, "binaryData": config.binary_data}
    return digest(content)
